"""The real Ljosa 2013 well profiles, joined with what was done to each well."""

from pathlib import Path

import pandas as pd
from anndata import AnnData

VIGNETTE = "derived_vignette_features_used.txt"  # 178 features of the published vignette
ALL_MEASURED = "features_449.txt"


def ljosa_wells(folder: Path, *, features: str = ALL_MEASURED) -> AnnData:
    """632 wells: 302 treated and 330 DMSO, week as batch. `folder` is the real data's bbbc021."""
    profiles = pd.read_csv(folder / "profiles" / "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz")
    names = (folder / "profiles" / features).read_text().split()
    fields = pd.read_csv(folder / "metadata" / "BBBC021_v1_image.csv.gz")
    moa = pd.read_csv(folder / "metadata" / "BBBC021_v1_moa.csv")
    moa.columns = ["Metadata_Compound", "Metadata_Concentration_um", "Metadata_MoA"]
    wells = fields[
        [
            "Image_Metadata_Plate_DAPI",
            "Image_Metadata_Well_DAPI",
            "Image_Metadata_Compound",
            "Image_Metadata_Concentration",
        ]
    ].drop_duplicates()
    wells.columns = ["Metadata_Plate", "Metadata_Well", "Metadata_Compound", "Metadata_Concentration_um"]
    obs = profiles[["Image_Metadata_Plate", "Image_Metadata_Well"]].set_axis(
        ["Metadata_Plate", "Metadata_Well"], axis=1
    )
    obs = obs.merge(wells, how="left", validate="1:1").merge(moa, how="left", validate="m:1")
    obs["Metadata_Batch"] = obs["Metadata_Plate"].str.split("_").str[0]
    is_control = obs["Metadata_Compound"] == "DMSO"
    obs["Metadata_Role"] = is_control.map({True: "control", False: "treated"})
    obs["Metadata_MoA"] = obs["Metadata_MoA"].mask(is_control, "")
    obs.index = obs["Metadata_Plate"] + "_" + obs["Metadata_Well"]
    return AnnData(profiles[names].to_numpy(), obs=obs, var=pd.DataFrame(index=names))
