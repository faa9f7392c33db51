"""Which registered models a page can offer, by what their architectures can do; and loading the chosen ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import loading
from dashboard.choices import best_of_each, version_name
from dashboard.page import plain, sentence
from gdm_core.contract import has
from gdm_core.registry import list_models, model_class
from gdm_core.storage import StorageError
from pipelines.tracker import StoreError

if TYPE_CHECKING:
    from dashboard.loading import LoadedModel
    from pipelines.tracking import ModelVersion

MOST_BY_DEFAULT = 6
MOST_NAMED = 6  # of the models that a page does not offer


def able(versions: Sequence[ModelVersion], *needed: type) -> list[ModelVersion]:
    """The versions whose architecture is known here and has every capability needed."""
    return [v for v in versions if _known(v) and all(has(model_class(v.architecture), one) for one in needed)]


def architectures(*needed: type) -> list[str]:
    """The registered architectures that have every capability needed."""
    import gdm_core.models  # noqa: F401

    return [name for name in list_models() if all(has(model_class(name), one) for one in needed)]


def newest_dataset(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """The best version of each name of the data set that was trained on last: what a page starts with."""
    return [v for v in best_of_each(versions) if v.dataset == versions[0].dataset][:MOST_BY_DEFAULT] if versions else []


def load(versions: Sequence[ModelVersion]) -> list[tuple[ModelVersion, LoadedModel]]:
    """The chosen models, loaded; one that cannot be is named in one sentence, and the others go on."""
    loaded = []
    for version in versions:
        try:
            loaded.append((version, loading.model(version.uri)))
        except (StoreError, StorageError, ValueError) as error:
            st.error(f"**{plain(version_name(version))}**: {sentence(error)}", icon=":material/error:")
    return loaded


def say_nothing_registered(needed: str) -> None:
    """The page's empty state: what to do for there to be something to see."""
    st.info(
        f"No registered model can {needed} yet. Train one, and it appears here by itself: "
        "`python -m pipelines train vae --dataset digits`",
        icon=":material/inbox:",
    )


def say_who_can(
    versions: Sequence[ModelVersion], offered: Sequence[ModelVersion], needed: type, ability: str, example: str
) -> None:
    """Which registered models lack a capability (`ability`: "fill in pixels"), or, where all do, who has it."""
    others = sorted({v.name for v in versions} - {v.name for v in offered})
    if not offered:
        can = ", ".join(f"`{name}`" for name in architectures(needed))
        so_far = f"None of the registered models ({plain(', '.join(others))})" if others else "No registered model"
        st.info(f"{so_far} can {ability} yet. Architectures that can: {can}. Train one, and it appears here by itself: "
                f"`python -m pipelines train {example} --dataset digits`", icon=":material/inbox:")  # fmt: skip
    elif others:
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        st.caption(f"Not offered, because they cannot {ability}: {plain(', '.join(others[:MOST_NAMED]))}{more}.")


def say_unknown(versions: Sequence[ModelVersion]) -> None:
    """A sentence about versions of architectures that this program does not have."""
    unknown = sorted({v.architecture for v in versions if not _known(v)})
    if unknown:
        st.caption(f"Not offered: models of architectures unknown here ({plain(', '.join(unknown))}).")


def _known(version: ModelVersion) -> bool:
    import gdm_core.models  # noqa: F401

    return version.architecture in list_models()
