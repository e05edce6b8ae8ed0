// Tables: a click on a heading sorts, the field above keeps the rows that hold what is typed.
document.querySelectorAll("table.data").forEach((table) => {
  const body = table.tBodies[0];
  const number = (text) => { const found = parseFloat(text.replace("<", "")); return isNaN(found) ? null : found; };
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.tabIndex = 0;
    head.setAttribute("role", "columnheader");
    const sort = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].textContent.trim();
      const rows = Array.from(body.rows).sort((a, b) => {
        const [x, y] = [number(key(a)), number(key(b))];
        return x !== null && y !== null ? x - y : key(a).localeCompare(key(b));
      });
      (up ? rows : rows.reverse()).forEach((row) => body.append(row));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
  const field = table.closest("details").querySelector("input");
  if (field) field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    Array.from(body.rows).forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
  });
});
// What a link leads to is opened.
const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", open);
open();
