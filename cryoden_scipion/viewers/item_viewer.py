"""What the viewers of single tomograms share: choosing one, and buttons that several of them have."""

from typing import Any, List

from pyworkflow.protocol.params import EnumParam, Form
from tomo.objects import Tomogram

from cryoden_core.jobs import JobError

from ..constants import OUTPUT_LABELS, OUTPUT_TOMOGRAMS
from ..convert import ItemFolder, item_folders, safe_name
from . import figures
from .figure_viewer import Button, FigureViewer


class ItemViewer(FigureViewer):
    """A form with one item to choose; its buttons are the subclass's.

    What is there can be looked at while the run goes on: the loss from the first steps, the rest when the item is
    finished.
    """

    #: Title of the form, and what an item is called in it.
    HEADING = "Tomograms"
    ITEM = "Tomogram"

    def _defineParams(self, form: Form) -> None:
        form.addSection(label=self.HEADING)
        form.addParam(
            "tomogram",
            EnumParam,
            choices=self.tsIds() or ["none yet"],
            default=0,
            display=EnumParam.DISPLAY_COMBO,
            label=self.ITEM,
            help="Which one the pictures below are about.",
        )
        self._defineButtons(form)

    def _windowTitle(self, title: str) -> str:
        return "%s: %s" % (self.tsId(), title)

    # --------------------------- buttons that several viewers have -----------
    def _fscButton(self) -> Button:
        return Button(
            "showFsc",
            "Agreement of the half maps (FSC)",
            "Fourier shell correlation between the even and the odd tomogram, before and after. After denoising it is "
            "no measure of resolution, because both halves went through the same network.",
            "half maps",
            self.halfMapFsc,
        )

    def _labelsButton(self) -> Button:
        return Button(
            "showLabels",
            "Classes in colour",
            "Central xy, xz and yz slices as they are, and with the class of each voxel in colour.",
            "classes",
            self.labelled,
        )

    def halfMapFsc(self) -> Any:
        """Agreement of the half maps before and after, of a protocol that puts out denoised ones."""
        drawn = figures.half_map_fsc(self._before(), self._after())
        if drawn is None:
            raise JobError("%s has no half maps." % self.tsId())
        return drawn

    def labelled(self) -> Any:
        """The result of the chosen item with its labels."""
        labels = getattr(self.protocol, OUTPUT_LABELS, None)
        if labels is None:
            raise JobError("There are no labels: none were given, or the run is not finished yet.")
        tomogram = self._after()
        return figures.labelled(tomogram, self._find(labels, tomogram.getTsId()), self._namedBy())

    def _namedBy(self) -> str:
        """The file of labels that say the names of classes, where those of the result do not."""
        return ""

    # --------------------------- items ---------------------------------------
    def tsIds(self) -> List[str]:
        """The items that were started, in the order of the input."""
        started = {folder.name for folder in item_folders(self.protocol._getExtraPath())}
        return [ts_id for ts_id in self.protocol.getInputSet().getTSIds() if safe_name(ts_id) in started]

    def tsId(self) -> str:
        """The item that was chosen."""
        return (self.tsIds() or ["none yet"])[self.tomogram.get()]

    def _folder(self) -> ItemFolder:
        return ItemFolder.of(self.protocol._getExtraPath(), self.tsId())

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
