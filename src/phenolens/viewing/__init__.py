"""Viewing: pictures of cells and charts, the report; computes no score."""

from phenolens.colours import Contrast, cell_image, channel_colours, shared_contrast
from phenolens.viewing.canvas import alt_of, caption_of, png
from phenolens.viewing.charts import confusion, learning_curves, treatment_map
from phenolens.viewing.figures import cell_sheet, reconstructions
from phenolens.viewing.page import SavedPicture
from phenolens.viewing.report import ReportContents, report_html
from phenolens.viewing.scoretable import verdict_sentence

__all__ = [
    "Contrast",
    "ReportContents",
    "SavedPicture",
    "alt_of",
    "caption_of",
    "cell_image",
    "cell_sheet",
    "channel_colours",
    "confusion",
    "learning_curves",
    "png",
    "reconstructions",
    "report_html",
    "shared_contrast",
    "treatment_map",
    "verdict_sentence",
]
