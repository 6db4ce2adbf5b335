"""The classes that labels hold, to choose some of them for a training set."""

from typing import Any, Dict, List

from pyworkflow.object import String
from pyworkflow.wizard import Wizard

from ..clean_domain import class_names
from ..convert import clean_path
from ..protocols import ProtCryodenDualTrainingSet


def classes_of(protocol: Any) -> Dict[int, str]:
    """Names of the classes, by their number, of the labels that a form has as its input; empty where none are known."""
    labels = protocol.inputLabels.get()
    names: Dict[int, str] = {}
    for mask in labels.iterItems() if labels is not None else ():
        names.update(class_names(clean_path(mask.getFileName())))
    return dict(sorted(names.items()))


class CryodenClassesWizard(Wizard):
    """Lists the classes; those that are marked go into the field."""

    _targets = [(ProtCryodenDualTrainingSet, ["classes"])]

    def show(self, form: Any, *params: Any) -> None:
        """Ask, and fill the field."""
        from pyworkflow.gui.dialog import showInfo

        names = classes_of(form.protocol)
        if not names:
            showInfo("Classes", "Choose the labels first. Where they say no names, give numbers.", form.root)
            return
        chosen = self.ask(form.root, list(names.values()))
        if chosen:
            form.setVar("classes", ", ".join(chosen))

    def ask(self, root: Any, names: List[str]) -> List[str]:
        """The names that the person marks; none when the window is closed."""
        from pyworkflow.gui.dialog import ListDialog
        from pyworkflow.gui.tree import ListTreeProviderString

        provider = ListTreeProviderString([String(name) for name in names])
        message = "Mark those to keep (Ctrl or Shift for several)."
        return [item.get() for item in ListDialog(root, "Classes", provider, message).values]
