"""A viewer that is a column of buttons, each of which opens a figure or says in a sentence why there is none."""

from typing import Any, Callable, Dict, List, NamedTuple

from pyworkflow.protocol.params import Form, LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, MSG_WARN, MessageView, ProtocolViewer, View

from cryoden_core.jobs import JobError

from .figure_view import FigureView


class Button(NamedTuple):
    """One button: its name in the form, label and help, the window's title, and what draws the figure."""

    name: str
    label: str
    help: str
    title: str
    draw: Callable[[], Any]


class FigureViewer(ProtocolViewer):
    """The buttons are the subclass's; the first one stands out."""

    _environments = [DESKTOP_TKINTER]

    def _buttons(self) -> List[Button]:
        raise NotImplementedError

    def _windowTitle(self, title: str) -> str:
        """Title of the window of a figure."""
        return title

    def _defineButtons(self, form: Form) -> None:
        for number, button in enumerate(self._buttons()):
            form.addParam(button.name, LabelParam, important=not number, label=button.label, help=button.help)

    def _getVisualizeDict(self) -> Dict[str, Callable]:
        return {button.name: lambda *_, shown=button: self._show(shown) for button in self._buttons()}

    def _show(self, button: Button) -> List[View]:
        """The window with one figure, or the sentence that says why there is none."""
        try:
            drawn = button.draw()
        except (JobError, OSError) as error:
            return [MessageView(str(error), "Nothing to show", MSG_WARN, self.getTkRoot())]
        return [FigureView(drawn, self._windowTitle(button.title), self.getTkRoot())]
