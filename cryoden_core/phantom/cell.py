"""Grand models like pieces of a cell, no two of one composition: membranes, gold, filaments, clusters, macromolecules.

Numbers, occupancy and abundances are drawn for each field, the abundances from a Dirichlet distribution, so that a
network that learns from several fields cannot take a fixed composition for granted.  The order is that of size:
membranes with their proteins, gold, filaments, clusters (chains like polysomes), then single macromolecules, the
largest first.  At last a weak low-pass noise stands for what is too small to be placed, and outside of the ice there
is vacuum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..jobs import JobError
from .atoms import ICE_DENSITY, PROTEIN_CONTRAST
from .bilayers import place_membrane
from .filaments import FILAMENTS, builtin_filament, place_filament
from .membranes import GOLD_DENSITY
from .packing import GrandModel, bead_maker, check_templates
from .particles import count_by_class, describe_shapes, random_rotation
from .placing import Field, Kind, TurnableTemplate
from .templates import Template

#: Distance of neighbours in a cluster, angstrom, their number, and directions tried for each.
CLUSTER_DISTANCES, CLUSTER_SIZES, _DIRECTIONS = (250.0, 350.0), (4, 12), 20
#: Members of a class that may fail to find room, one after the other, before there is none left for it.
_FAILURES = 6
#: The field is filled to within this share of the wanted occupancy.
_TOLERANCE = 0.03
#: Length over which the crowding noise is correlated (standard deviation of its filter), angstrom.
CROWDING_LENGTH = 15.0
#: Width of the ice's surfaces, angstrom, and their largest tilt, degrees.
ICE_EDGE, ICE_TILT_DEGREES = 20.0, 5.0


@dataclass(frozen=True)
class CellRecipe:
    """What a field holds; ranges are drawn from for each field, ``at most`` numbers from 0 on.

    Attributes
    ----------
    particles
        Number of single macromolecules; 0 fills to the occupancy.
    occupancy
        Smallest and largest share of the field's voxels that macromolecules (without filaments and membrane
        proteins) are labelled on.
    abundance_spread
        Concentration of the Dirichlet distribution of the classes' numbers; small ones give uneven fields.
    vesicles, tubes, sheets, beads, actin, microtubules, clusters
        At most so many.
    membrane_proteins
        In each membrane, at most so many.
    membrane_radii, bead_radii
        Smallest and largest, angstrom.
    cluster_template
        Name of the class that forms clusters; empty takes the heaviest.
    gold_contrast
        Density of gold where protein has 1.
    crowding
        Standard deviation of the background where protein has 1.
    ice_thickness
        Smallest and largest, angstrom; zeros fill the whole field with ice.
    gap
        Free space around each object, voxels.
    """

    particles: int
    occupancy: tuple[float, float]
    abundance_spread: float
    vesicles: int
    tubes: int
    sheets: int
    beads: int
    actin: int
    microtubules: int
    clusters: int
    membrane_proteins: int
    membrane_radii: tuple[float, float]
    bead_radii: tuple[float, float]
    cluster_template: str
    gold_contrast: float
    crowding: float
    ice_thickness: tuple[float, float]
    gap: float


def pack_cell(
    shape: tuple[int, int, int],
    templates: Sequence[Template],
    recipe: CellRecipe,
    seed: int,
    membrane_templates: Sequence[Template] = (),
    on_share: Callable[[float], None] | None = None,
) -> tuple[GrandModel, dict[str, Any]]:
    """Pack one field; the same seed gives the same field.

    Parameters
    ----------
    shape
        (z, y, x) voxels.
    templates
        Single macromolecules, at least one, all of one voxel size, which becomes the model's.
    recipe
        What to place.
    seed
        Of the random numbers.
    membrane_templates
        Proteins of membranes: z axis along the outward normal, centre of mass in the middle of the bilayer.
    on_share
        Told the share of the work that is done, now and then.

    Returns
    -------
    GrandModel, dict
        The field, and what was drawn and reached, in JSON's terms.

    Raises
    ------
    JobError
        When templates are missing or differ in voxel size, the cluster's class is unknown, or no template fits.
    """
    check_cell(shape, templates, recipe)
    voxel_size = check_templates([*templates, *membrane_templates])
    packer = _CellPacker(shape, templates, membrane_templates, recipe, voxel_size, seed)
    for done, stage in enumerate((packer.freeze, packer.membranes, packer.gold, packer.filaments, packer.clusters)):
        stage()
        if on_share:
            on_share(0.05 * (done + 1))
    packer.singles(lambda share: on_share(0.25 + 0.7 * share) if on_share else None)
    packer.background()
    if on_share:
        on_share(1.0)
    return packer.model(), packer.drawn


def check_cell(shape: tuple[int, int, int], templates: Sequence[Template], recipe: CellRecipe) -> None:
    """Refuse what cannot be packed, before it is tried.

    Raises
    ------
    JobError
        When there is no template, none fits into the field, or the cluster's class is unknown.
    """
    check_templates(templates)
    smallest = min(min(np.ptp(np.argwhere(t.density > 0), axis=0)) + 1 for t in templates)
    if smallest > min(shape):
        raise JobError(
            f"no template fits a field of {shape[2]} x {shape[1]} x {shape[0]} voxels (x, y, z); make it larger than "
            f"{smallest} voxels."
        )
    names = [template.name for template in templates]
    if recipe.cluster_template and recipe.cluster_template not in names:
        raise JobError(
            f"no template is called {recipe.cluster_template!r}, which is to form clusters; there are: "
            f"{', '.join(names)}."
        )


class _CellPacker:
    """The stages of packing, in their order."""

    def __init__(
        self, shape: tuple[int, int, int], templates: Sequence[Template], membrane_templates: Sequence[Template],
        recipe: CellRecipe, voxel_size: float, seed: int,
    ) -> None:  # fmt: skip
        self.recipe, self.random = recipe, np.random.default_rng(seed)
        self.field = Field(shape, voxel_size, recipe.gap, self.random)
        self.drawn: dict[str, Any] = {"seed": seed}
        self.missing = 0
        self.chains = 0
        self.ice: np.ndarray | None = None
        self.class_names: dict[int, str] = {}
        self.single = [(TurnableTemplate(t), self._kind("particle", t)) for t in templates]
        self.in_membranes = [(TurnableTemplate(t), self._kind("membrane protein", t)) for t in membrane_templates]
        self.filament_labels = {name: self._label(name) for name in FILAMENTS}
        self.membrane = self._label("membrane")
        self.bead = self._label("bead")

    def _label(self, name: str) -> int:
        label = len(self.class_names) + 1
        self.class_names[label] = name
        return label

    def _kind(self, kind: str, template: Template) -> Kind:
        return Kind(kind, template.name, self._label(template.name), template.kilodalton)

    def _draw_count(self, name: str, most: int) -> int:
        count = int(self.random.integers(0, most + 1))
        self.drawn[name] = count
        return count

    def freeze(self) -> None:
        """Choose the slab of ice, outside of which nothing is placed."""
        low, high = self.recipe.ice_thickness
        if not high:
            return
        thickness = self.random.uniform(low, high)
        tilt, direction = np.radians(ICE_TILT_DEGREES) * self.random.uniform(), self.random.uniform(0, 2 * np.pi)
        z, y, x = (
            (np.arange(n, dtype=np.float32) - (n - 1) / 2).reshape([-1 if a == axis else 1 for a in range(3)])
            for axis, n in enumerate(self.field.shape)
        )
        height = np.cos(tilt) * z + np.sin(tilt) * (np.cos(direction) * x + np.sin(direction) * y)
        depth = thickness / 2 - np.abs(height) * self.field.voxel_size  # angstrom below the nearer surface
        self.ice = (0.5 + 0.5 * np.tanh(depth / (ICE_EDGE / 2))).astype(np.float32)
        self.field.outside = depth < ICE_EDGE
        self.field.used |= self.field.outside
        self.drawn.update(ice_thickness_angstrom=round(thickness, 1), ice_tilt_degrees=round(np.degrees(tilt), 2))

    def membranes(self) -> None:
        """Sheets and tubes, then vesicles; what is placed first may enclose what comes later, not the reverse."""
        proteins = self.recipe.membrane_proteins if self.in_membranes else 0
        low, high = self.recipe.membrane_radii
        for kind, most in (("sheet", self.recipe.sheets), ("tube", self.recipe.tubes)):
            for _ in range(self._draw_count(kind + "s", most)):
                self._membrane(kind, (low, high), proteins)
        count = self._draw_count("vesicles", self.recipe.vesicles)
        # Radii are uniform in their logarithm; each vesicle has its own narrow range, the largest first.
        for radius in np.sort(np.exp(self.random.uniform(np.log(low), np.log(high), count)))[::-1]:
            self._membrane("vesicle", (radius, radius), proteins)

    def _membrane(self, kind: str, radii: tuple[float, float], proteins: int) -> None:
        count = int(self.random.integers(0, proteins + 1))
        placed = place_membrane(self.field, Kind(kind, "membrane", self.membrane), radii, self.in_membranes, count)
        self.missing += placed is None

    def gold(self) -> None:
        """Gold beads, wholly inside the field."""
        for _ in range(self._draw_count("beads", self.recipe.beads)):
            make = bead_maker(self.random.uniform(*self.recipe.bead_radii), self.field.voxel_size)

            def scaled(make: Callable[[], Any] = make) -> Any:
                item = make()
                item.density *= self.recipe.gold_contrast / GOLD_DENSITY
                return item

            self.missing += not self.field.place(scaled, Kind("bead", "bead", self.bead))

    def filaments(self) -> None:
        """Actin and microtubules, the wider first."""
        for name, most in (("microtubule", self.recipe.microtubules), ("actin", self.recipe.actin)):
            count = self._draw_count(name, most)
            if not count:
                continue
            filament = builtin_filament(name, self.field.voxel_size)
            turnable = TurnableTemplate(filament.unit)
            kind = Kind("filament", name, self.filament_labels[name], filament.unit.kilodalton)
            for _ in range(count):
                self.chains += 1
                self.missing += not place_filament(self.field, filament, turnable, kind, self.chains)

    def clusters(self) -> None:
        """Chains of one class, each member 250 to 350 angstrom from the last."""
        named = [pair for pair in self.single if pair[1].name == self.recipe.cluster_template]
        chosen = max(named or self.single, key=lambda pair: pair[0].template.mass)
        for _ in range(self._draw_count("clusters", self.recipe.clusters)):
            self.chains += 1
            self._cluster(*chosen, int(self.random.integers(CLUSTER_SIZES[0], CLUSTER_SIZES[1] + 1)))

    def _cluster(self, turnable: TurnableTemplate, kind: Kind, size: int) -> None:
        if not self.field.place(lambda: turnable.in_any_orientation(self.random), kind, self.chains):
            self.missing += 1
            return
        for _ in range(size - 1):
            last = self.field.particles[-1].position
            if not any(self._neighbour(turnable, kind, last) for _ in range(_DIRECTIONS)):
                return

    def _neighbour(self, turnable: TurnableTemplate, kind: Kind, last: np.ndarray) -> bool:
        direction = self.random.normal(size=3)
        distance = self.random.uniform(*CLUSTER_DISTANCES) / self.field.voxel_size
        position = last + direction / np.linalg.norm(direction) * distance
        item, corner = turnable.at(position, random_rotation(self.random))
        whole = (corner >= 0).all() and (corner + item.density.shape <= self.field.shape).all()
        if not whole or not self.field.is_free(item.footprint, corner):
            return False
        self.field.stamp(item, corner, kind, self.chains)
        return True

    def singles(self, on_share: Callable[[float], None]) -> None:
        """Macromolecules by their abundances: the expected numbers, the largest first, then what is still missing."""
        abundance = self.random.dirichlet(np.full(len(self.single), self.recipe.abundance_spread))
        voxels = np.array([turnable.template.voxels for turnable, _ in self.single])
        names = [kind.name for _, kind in self.single]
        self.drawn["abundances"] = dict(zip(names, abundance.round(4).tolist(), strict=True))
        order = np.argsort([-turnable.template.mass for turnable, _ in self.single], kind="stable")
        if self.recipe.particles:
            counts = self.random.multinomial(self.recipe.particles, abundance)
            placed = 0
            for index in order:
                for _ in range(counts[index]):
                    self.missing += not self._single(index)
                    placed += 1
                    on_share(placed / self.recipe.particles)
            return
        wanted = self.random.uniform(*self.recipe.occupancy)
        self.drawn["occupancy_wanted"] = round(wanted, 5)
        room = float(self.ice.sum()) if self.ice is not None else self.field.density.size
        target, filled = wanted * room, float(self._macromolecular_voxels())
        counts = np.floor(abundance * max(target - filled, 0) / (abundance @ voxels)).astype(int)
        for index in order:
            failures = 0
            for _ in range(counts[index]):
                filled, failures = self._fill(index, filled, failures)
                on_share(min(1.0, filled / target))
                if failures == _FAILURES:
                    break
        self._top_up(abundance, voxels, target, filled)

    def _top_up(self, abundance: np.ndarray, voxels: np.ndarray, target: float, filled: float) -> None:
        """Add what still fits under the target, drawn by abundance; classes that find no more room drop out."""
        failures = np.zeros(len(abundance), int)
        while filled < (1 - _TOLERANCE) * target:
            fitting = (filled + voxels <= (1 + _TOLERANCE) * target) & (failures < _FAILURES)
            if not fitting.any():
                break
            # Rare classes get a small chance too, or a field of one large class could not be filled.
            share = np.where(fitting, np.maximum(abundance, 1e-3), 0)
            index = self.random.choice(len(share), p=share / share.sum())
            filled, failures[index] = self._fill(index, filled, failures[index])
        self.drawn["full"] = bool((failures == _FAILURES).any())

    def _fill(self, index: int, filled: float, failures: int) -> tuple[float, int]:
        """Place one of a class; returns the voxels filled, and how often in a row no room was found."""
        if not self._single(index):
            return filled, failures + 1
        particle = self.field.particles[-1]
        centre = particle.position[::-1]
        reach = self.single[index][0].template.density.shape[0] // 2 + 2
        low = np.maximum(np.floor(centre) - reach, 0).astype(int)
        box = tuple(slice(a, int(c) + reach + 2) for a, c in zip(low, centre, strict=True))
        return filled + float((self.field.instances[box] == particle.instance).sum()), 0

    def _single(self, index: int) -> bool:
        turnable, kind = self.single[index]
        return self.field.place(lambda: turnable.in_any_orientation(self.random), kind)

    def _macromolecular_voxels(self) -> int:
        return int(np.isin(self.field.labels, [kind.label for _, kind in self.single]).sum())

    def background(self) -> None:
        """Crowding between the objects, and vacuum outside of the ice."""
        density = self.field.density
        if self.recipe.crowding:
            noise = self.random.standard_normal(density.shape, np.float32)
            noise = ndimage.gaussian_filter(noise, CROWDING_LENGTH / self.field.voxel_size)
            noise[self.field.labels > 0] = 0
            density += np.float32(self.recipe.crowding / noise[self.field.labels == 0].std()) * noise
        if self.ice is not None:
            # Of the ice itself is taken away what its surface leaves open.
            density *= self.ice
            density -= np.float32(ICE_DENSITY / PROTEIN_CONTRAST) * (1 - self.ice)

    def model(self) -> GrandModel:
        """The packed field."""
        field = self.field
        room = float(self.ice.sum()) if self.ice is not None else field.density.size
        self.drawn.update(
            occupancy=round(self._macromolecular_voxels() / room, 5), count_of_class=count_by_class(field.particles),
            missing=self.missing, membranes_and_beads=describe_shapes(field.particles),
        )  # fmt: skip
        return GrandModel(
            field.density, field.labels, field.instances, field.particles, self.class_names, field.voxel_size,
            self.missing,
        )  # fmt: skip
