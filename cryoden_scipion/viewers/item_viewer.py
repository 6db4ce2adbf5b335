"""What the viewers of single tomograms share: choosing one, and a window or a sentence for each button."""

from typing import Any, Callable, List

from pyworkflow.protocol.params import EnumParam, Form, LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, MSG_WARN, MessageView, ProtocolViewer, View
from tomo.objects import Tomogram

from cryoden_core.jobs import JobError

from ..constants import OUTPUT_LABELS, OUTPUT_TOMOGRAMS
from ..convert import ItemFolder, item_folders, safe_name
from . import figures
from .figure_view import FigureView


class ItemViewer(ProtocolViewer):
    """A form with one item to choose; its buttons are the subclass's.

    What is there can be looked at while the run goes on: the loss from the first steps, the rest when the item is
    finished.
    """

    _environments = [DESKTOP_TKINTER]

    def _defineItemParam(self, form: Form, label: str) -> None:
        form.addParam(
            "tomogram",
            EnumParam,
            choices=self.tsIds() or ["none yet"],
            default=0,
            display=EnumParam.DISPLAY_COMBO,
            label=label,
            help="Which one the pictures below are about.",
        )

    @staticmethod
    def _defineLabelsParam(form: Form) -> None:
        form.addParam(
            "showLabels",
            LabelParam,
            important=True,
            label="Classes in colour",
            help="Central xy, xz and yz slices as they are, and with the class of each voxel in colour.",
        )

    def labelled(self, ts_id: str = "", named_by: str = "") -> Any:
        """A tomogram of the output with its labels; where they say no names, those of the labels ``named_by``."""
        labels = getattr(self.protocol, OUTPUT_LABELS, None)
        if labels is None:
            raise JobError("There are no labels: none were given, or nothing is finished yet.")
        tomogram = self._find(getattr(self.protocol, OUTPUT_TOMOGRAMS, None), ts_id)
        return figures.labelled(tomogram, self._find(labels, ts_id), named_by)

    @staticmethod
    def _defineFscParam(form: Form) -> None:
        form.addParam(
            "showFsc",
            LabelParam,
            label="Agreement of the half maps (FSC)",
            help="Fourier shell correlation between the even and the odd tomogram, before and after. After denoising "
            "it is no measure of resolution, because both halves went through the same network.",
        )

    def figure(self, what: str, draw: Callable[[], Any]) -> List[View]:
        """The window with one figure, or the sentence that says why there is none."""
        try:
            drawn = draw()
        except (JobError, OSError) as error:
            return [MessageView(str(error), "Nothing to show", MSG_WARN, self.getTkRoot())]
        return [FigureView(drawn, "%s: %s" % (self.tsId(), what), self.getTkRoot())]

    def tsIds(self) -> List[str]:
        """The items that were started, in the order of the input."""
        started = {folder.name for folder in item_folders(self.protocol._getExtraPath())}
        return [ts_id for ts_id in self.protocol.getInputSet().getTSIds() if safe_name(ts_id) in started]

    def tsId(self) -> str:
        """The item that was chosen."""
        return (self.tsIds() or ["none yet"])[self.tomogram.get()]

    def _folder(self) -> ItemFolder:
        return ItemFolder.of(self.protocol._getExtraPath(), self.tsId())

    def halfMapFsc(self) -> Any:
        """Agreement of the half maps before and after, of a protocol that puts out denoised ones."""
        drawn = figures.half_map_fsc(self._before(), self._after())
        if drawn is None:
            raise JobError("%s has no half maps." % self.tsId())
        return drawn

    def _before(self) -> Tomogram:
        return self._find(self.protocol.getInputSet())

    def _after(self) -> Tomogram:
        return self._find(getattr(self.protocol, OUTPUT_TOMOGRAMS, None))

    def _find(self, tomograms: Any, ts_id: str = "") -> Tomogram:
        """A tomogram of a set, that of the chosen item when no other is named."""
        name = ts_id or self.tsId()
        # getItem fails for an item that is not there.
        if tomograms is None or name not in tomograms.getTSIds():
            raise JobError("%s is not finished yet." % self.tsId())
        return tomograms.getItem(Tomogram.TS_ID_FIELD, name).clone()
