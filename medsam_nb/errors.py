"""The errors a user can mend: each names the item, what is wrong with it, and what to do."""


class WorkbookError(Exception):
    """A problem that its reader can solve.

    Parameters
    ----------
    item : object
        The file, data set, parameter or case that is wrong.
    problem : str
        What is wrong with it.
    remedy : str
        What to do about it.
    """

    def __init__(self, item: object, problem: str, remedy: str) -> None:
        super().__init__(f"{item}: {problem} {remedy}")
        self.item, self.problem, self.remedy = str(item), problem, remedy

    def __reduce__(self):  # the default loses two of the three arguments between processes
        return type(self), (self.item, self.problem, self.remedy)


class InputError(WorkbookError):
    """An image, mask or table cannot be used; a study records the case and goes on."""


class ManifestError(WorkbookError):
    """A row of the data manifest is wrong or missing."""


class CheckpointError(WorkbookError):
    """A model's weights are missing, damaged, or not what the manifest says."""


class StudyError(WorkbookError):
    """A study file or a parameter of it is wrong."""
