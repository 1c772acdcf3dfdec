"""`watkins models`: the registry from the terminal."""

from __future__ import annotations

from watkins_ml.cli.arguments import Json, print_json

EXAMPLE = "watkins models"


def models(as_json: Json = False) -> None:
    """The registered models: versions, scores, data, and who is champion."""
    from watkins_ml.cli.model_tables import print_models
    from watkins_ml.inference.resolve import tracker_errors
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.faults import TrackingError, who_answers
    from watkins_ml.tracking.server import client, tracking_uri

    with tracker_errors("the model registry"):
        versions = registry.list_versions(client())
        if not versions and (fault := who_answers(tracking_uri())):  # any program may answer `{}`
            raise TrackingError(fault)
    if as_json:
        facts = ("name", "version", "aliases", "run_id", "source", "description", "tags")
        print_json([{fact: getattr(version, fact) for fact in facts} for version in versions])
    else:
        print_models(versions, tracking_uri())
