"""A window with one matplotlib figure; tkinter is loaded only when it is shown."""

from typing import Any, Optional

from pyworkflow.viewer import View


class FigureView(View):
    """Shows a figure that belongs to no window yet, with matplotlib's own toolbar to zoom and save."""

    def __init__(self, figure: Any, title: str, parent: Optional[Any] = None):
        self.figure = figure
        self.title = title
        self._parent = parent

    def show(self) -> None:
        """Open the window."""
        import tkinter

        from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg, NavigationToolbar2Tk

        window = tkinter.Toplevel(self._parent)
        window.title(self.title)
        canvas = FigureCanvasTkAgg(self.figure, master=window)
        NavigationToolbar2Tk(canvas, window).update()
        canvas.get_tk_widget().pack(side=tkinter.TOP, fill=tkinter.BOTH, expand=True)
        canvas.draw()
