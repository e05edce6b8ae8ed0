// Tables: a button in a heading sorts, the field above keeps the rows that hold what is typed.
document.querySelectorAll("table.data").forEach((table) => {
  const body = table.tBodies[0];
  const number = (text) => { const found = parseFloat(text.replace("<", "")); return isNaN(found) ? null : found; };
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].textContent.trim();
      const rows = Array.from(body.rows).sort((a, b) => {
        const [x, y] = [number(key(a)), number(key(b))];
        return x !== null && y !== null ? x - y : key(a).localeCompare(key(b));
      });
      (up ? rows : rows.reverse()).forEach((row) => body.append(row));
    });
  });
  const field = table.closest("details").querySelector("input");
  if (field) field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    Array.from(body.rows).forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
  });
});
// A box that holds more than it shows says so, and one with a picture is reached by keyboard then.
document.querySelectorAll(".scrolls").forEach((box) => {
  const look = () => {
    const more = box.scrollWidth - box.clientWidth;
    box.parentElement.classList.toggle("wide", more > 1);
    box.parentElement.classList.toggle("ended", more - box.scrollLeft < 2);
    if (!box.classList.contains("picture")) return;
    const named = { tabindex: "0", role: "group", "aria-label": "Figure, scrolls sideways" };
    Object.entries(named).forEach(([name, value]) =>
      more > 1 ? box.setAttribute(name, value) : box.removeAttribute(name));
  };
  box.addEventListener("scroll", look);
  const seen = new ResizeObserver(look);  // also when what folds it is opened
  [box, ...box.querySelectorAll("img, table")].forEach((part) => seen.observe(part));
});
// A term shows its meaning where it stands: under the mouse, on focus, and on a click until it is dismissed.
const meaning = document.createElement("div");
meaning.className = "meaning";
meaning.setAttribute("role", "tooltip");
meaning.hidden = true;
document.body.append(meaning);
let shown = null, pinned = false, waiting = 0;
const hide = () => { meaning.hidden = true; shown = null; pinned = false; };
const show = (word) => {
  clearTimeout(waiting);
  if (shown !== word) pinned = false;
  shown = word;
  meaning.textContent = word.dataset.meaning;
  meaning.hidden = false;
  const place = word.getClientRects()[0];
  const most = document.documentElement.clientWidth - meaning.offsetWidth - 8;
  meaning.style.left = `${scrollX + Math.max(8, Math.min(place.left, most))}px`;
  meaning.style.top = `${scrollY + place.bottom + 6}px`;
};
const leave = () => { waiting = setTimeout(() => { if (!pinned && !meaning.matches(":hover")) hide(); }, 150); };
meaning.addEventListener("mouseleave", leave);
document.querySelectorAll("a.word").forEach((word) => {
  word.dataset.meaning = word.title;
  word.removeAttribute("title");
  word.setAttribute("aria-describedby", `${word.hash.slice(1)}-meaning`);
  word.addEventListener("mouseenter", () => { if (!pinned) show(word); });
  word.addEventListener("mouseleave", leave);
  word.addEventListener("focus", () => { if (word.matches(":focus-visible")) show(word); });
  word.addEventListener("blur", () => { if (shown === word) hide(); });
  word.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (pinned && shown === word) return hide();
    show(word);
    pinned = true;
  });
});
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
addEventListener("click", (event) => { if (!event.target.closest("a.word, .meaning")) hide(); });
addEventListener("resize", hide);
// What a link leads to is opened.
const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", open);
open();
