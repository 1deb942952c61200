"""Record the probes of an expert or of a whole policy: the mean log-probability of their last message, in float32."""

from contextlib import nullcontext

from peft.helpers import rescale_adapter_scale

from tureen_core.experts.expert_reader import ExpertReader
from tureen_core.manifest import Manifest
from tureen_core.probe_readings import Rows, check_range, choose_readings, state_tolerances
from tureen_core.tolerance import LOGPROB, SERVED, name_reading


def record_expert_probes(manifest: Manifest, reader: ExpertReader) -> Manifest:
    """Read an expert's probes from its files in float32, and write the readings and tolerances into its manifest.

    An adapter is read at several weights, whole weights once.

    Raises:
        ArtifactError: the probes are too alike to tell, or read the same without the adapter.
    """
    probes = manifest.probes

    def read_all(weight: float, half: bool) -> Rows:
        reader.half = half
        with rescale_adapter_scale(reader.model, weight) if manifest.weights == "lora" else nullcontext():
            return [[each] for each in reader.mean_logprobs(probes)]

    if manifest.weights == "lora":
        readings = choose_readings(read_all, {0: LOGPROB}, trained=True)
    else:
        readings = {SERVED: read_all(SERVED, False)}
    check_range(readings[SERVED], {0: LOGPROB})
    recorded = [
        probe.model_copy(
            update={
                "logprob": readings[SERVED][number][0],
                "scores": {
                    name_reading(LOGPROB, weight): rows[number][0]
                    for weight, rows in readings.items()
                    if weight != SERVED
                },
            }
        )
        for number, probe in enumerate(probes)
    ]
    return manifest.model_copy(update={"probes": recorded, "tolerance": state_tolerances(readings[SERVED], (0,))})
