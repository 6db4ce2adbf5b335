"""Grand models with the real core: what is registered, where particles lie, what is refused."""

import os

import mrcfile
import numpy as np
from pwem.objects import SetOfVolumes, Volume
from pyworkflow.utils import magentaStr
from tomo.constants import BOTTOM_LEFT_CORNER, TR_RELION

from cryoden_core.jobs import CleanDomainJob, default_of, read_json
from cryoden_core.phantom.particles import read_star

from ..clean_domain import particle_of
from ..forms import form_name, job_settings
from ..protocols import ProtCryodenDualCleanDomain
from ..protocols.protocol_dual_clean_domain import EXISTING, FILES, MAPS, STRUCTURES
from ..viewers import CryodenCleanDomainViewer
from . import synthetic
from .base import CryodenTest

SIZE = {"volumes": 2, "width": 48, "height": 40, "depth": 32}
NOTHING_ELSE = {
    "vesicles": 0, "tubes": 0, "sheets": 0, "membrane_proteins": 0, "actin": 0, "microtubules": 0, "clusters": 0,
    "beads": 0, "occupancy_min": 0.01, "occupancy_max": 0.05,
}  # fmt: skip
QUICK = {form_name(name): value for name, value in {**SIZE, **NOTHING_ELSE}.items()}


def l_shape(edge=16):
    """A map that looks different from every side."""
    density = np.zeros((edge,) * 3, np.float32)
    density[4:12, 7:9, 7:9] = 1
    density[4:6, 7:9, 7:13] = 1
    density[4:6, 3:9, 7:8] = 0.6
    return density


class TestCleanDomain(CryodenTest):
    """Maps of a project become grand models."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        holder = cls.newProtocol(ProtCryodenDualCleanDomain, objLabel="maps")
        cls.proj.saveProtocol(holder)
        holder.makePathsAndClean()
        cls.volumes = SetOfVolumes.create(holder.getPath())
        cls.volumes.setSamplingRate(synthetic.SAMPLING_RATE)
        # The header says another voxel size than Scipion, which is right.
        path = synthetic.write_mrc(os.path.join(cls.data, "hook.mrc"), l_shape(), voxel_size=1.0)
        volume = Volume()
        volume.setLocation(path)
        volume.setSamplingRate(synthetic.SAMPLING_RATE)
        cls.volumes.append(volume)
        cls.volumes.write()
        holder._defineOutputs(Volumes=cls.volumes)
        holder._store()
        print(magentaStr("\n==> Making grand models of a map:"))
        cls.protocol = cls.newProtocol(
            ProtCryodenDualCleanDomain, templateSource=MAPS, inputVolumes=cls.volumes, boxSize=20, **QUICK
        )
        cls.launchProtocol(cls.protocol)

    def test_grand_models_are_tomograms_without_a_wedge(self):
        self.checkTomograms(
            self.protocol.Tomograms,
            expectedSetSize=2,
            expectedSRate=synthetic.SAMPLING_RATE,
            expectedDimensions=[SIZE["width"], SIZE["height"], SIZE["depth"]],
            expectedOriginShifts=[-SIZE[name] / 2.0 * synthetic.SAMPLING_RATE for name in ("width", "height", "depth")],
        )
        acquisition = self.protocol.Tomograms.getFirstItem().getAcquisition()
        self.assertEqual((acquisition.getAngleMin(), acquisition.getAngleMax()), (-90, 90))

    def test_each_coordinate_lies_in_a_particle_of_its_class_and_is_turned_as_the_table_says(self):
        placed = self.protocol.Coordinates
        self.assertEqual((placed.getBoxSize(), placed.getSamplingRate()), (20, synthetic.SAMPLING_RATE))
        total = 0
        for tomogram in self.protocol.Tomograms:
            folder = os.path.dirname(tomogram.getFileName())
            with mrcfile.open(os.path.join(folder, "labels.mrc")) as volume:
                labels = np.array(volume.data)
            rows = read_star(os.path.join(folder, "particles.star"))
            found = [item.clone() for item in placed.iterCoordinates(volume=tomogram)]
            self.assertEqual(len(found), len(rows))
            for coordinate, row in zip(found, rows):
                coordinate.setVolume(tomogram)
                x, y, z = coordinate.getPosition(BOTTOM_LEFT_CORNER)
                np.testing.assert_allclose((x, y, z), row.position, atol=1e-3)
                near = labels[tuple(slice(int(v) - 3, int(v) + 4) for v in row.position[::-1])]
                self.assertIn(coordinate.getGroupId(), near)
                matrix = coordinate.getMatrix(convention=TR_RELION)
                np.testing.assert_allclose(matrix[:3, :3].T, row.rotation, atol=1e-5)
                back = particle_of(coordinate)
                np.testing.assert_allclose(back.position, row.position, atol=1e-3)
                np.testing.assert_allclose(back.rotation, row.rotation, atol=1e-5)
                self.assertEqual((back.label, back.name), (row.label, row.name))
                self.assertEqual(coordinate._className.get(), "hook")
            total += len(rows)
        self.assertGreater(total, 4)

    def test_the_matrix_leads_from_a_particle_to_its_map(self):
        """The map, read through the matrix, is found in the density: Scipion's definition f'(r) = f(M r)."""
        tomogram = self.protocol.Tomograms.getFirstItem()
        folder = os.path.dirname(tomogram.getFileName())
        with mrcfile.open(tomogram.getFileName()) as volume:
            density = np.array(volume.data)
        template = l_shape()
        centre = np.array([np.average(axis, weights=template) for axis in np.indices(template.shape)[::-1]])
        edge = np.arange(-5, 6)
        grid = np.stack(np.meshgrid(edge, edge, edge, indexing="ij"), -1)[..., ::-1].reshape(-1, 3)  # x, y, z

        def sample(data, points):
            whole = np.clip(np.rint(points).astype(int), 0, np.array(data.shape[::-1]) - 1)
            return data[tuple(whole.T[::-1])]

        def likeness(matrix, position):
            return np.corrcoef(sample(density, position + grid), sample(template, centre + grid @ matrix.T))[0, 1]

        inside = [
            row for row in read_star(os.path.join(folder, "particles.star"))
            if (row.position > 6).all() and (row.position < np.array(density.shape[::-1]) - 7).all()
        ]  # fmt: skip
        right = [likeness(row.rotation.T, row.position) for row in inside]
        wrong = [likeness(row.rotation, row.position) for row in inside]
        self.assertGreater(len(inside), 2)
        self.assertGreater(np.mean(right), 0.6)
        self.assertGreater(np.mean(right), np.mean(wrong) + 0.2)

    def test_a_map_whose_header_is_wrong_is_packed_at_the_projects_sampling_rate(self):
        job = read_json(self.protocol.folder().request)["parameters"]
        (template,) = job["templates"]
        with mrcfile.open(template, header_only=True) as volume:
            self.assertAlmostEqual(float(volume.voxel_size.x), synthetic.SAMPLING_RATE, places=3)
        self.assertIn("hook", "".join(self.protocol._summary()))

    def test_the_viewer_names_the_class_that_was_placed(self):
        viewer = CryodenCleanDomainViewer(project=self.proj)
        viewer.setProtocol(self.protocol)
        self.assertEqual(viewer.tsIds(), ["volume_001", "volume_002"])
        (view,) = viewer._getVisualizeDict()["showLabels"]("showLabels")
        self.assertEqual([entry.get_text() for entry in view.figure.subfigs[1].legends[0].get_texts()], ["hook"])

    def test_the_forms_defaults_are_those_of_the_job(self):
        settings = job_settings(self.newProtocol(ProtCryodenDualCleanDomain), CleanDomainJob)
        self.assertGreater(len(settings), 25)
        for name, value in settings.items():
            self.assertEqual(value, default_of(CleanDomainJob, name), name)

    def test_what_is_missing_or_cannot_be_is_said_before_the_run(self):
        for values, sentence in (
            ({"templateSource": MAPS}, "Choose the density maps"),
            ({"templateSource": STRUCTURES}, "at least one atomic structure"),
            ({"templateSource": FILES, "templatePath": "/nowhere/maps"}, "/nowhere/maps does not exist"),
            ({"templateSource": EXISTING}, "Give the grand models"),
            ({"occupancyMin": 0.3, "occupancyMax": 0.1}, "must not be larger than"),
        ):
            protocol = self.newProtocol(ProtCryodenDualCleanDomain, **values)
            self.assertIn(sentence, "".join(protocol._validate()))

    def test_finished_models_are_brought_in_without_coordinates_where_none_are_known(self):
        path = synthetic.write_mrc(os.path.join(self.data, "model.mrc"), -synthetic.blobs((32, 40, 48)))
        protocol = self.newProtocol(ProtCryodenDualCleanDomain, templateSource=EXISTING, existingPath=path)
        self.launchProtocol(protocol)
        self.assertEqual(protocol.Tomograms.getSize(), 1)
        self.assertFalse(hasattr(protocol, "Coordinates"))
