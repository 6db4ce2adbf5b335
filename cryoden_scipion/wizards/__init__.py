"""Wizards of CryoDen: the wand beside a field of a form fills it from the input."""

from .wizard_classes import CryodenClassesWizard
from .wizard_contrast import CryodenContrastWizard
from .wizard_thickness import CryodenThicknessWizard
from .wizard_voxel_size import CryodenVoxelSizeWizard

__all__ = ["CryodenClassesWizard", "CryodenContrastWizard", "CryodenThicknessWizard", "CryodenVoxelSizeWizard"]
