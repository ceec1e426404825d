"""Experiments: settings, phases, and the driver that runs them and writes results."""

from fedpeft_jax.experiment.build import make_algorithm, make_model
from fedpeft_jax.experiment.callbacks import Callback
from fedpeft_jax.experiment.checkpoint import load_variables
from fedpeft_jax.experiment.clients import Clients, make_clients
from fedpeft_jax.experiment.config import FIELDS, RunConfig, configure
from fedpeft_jax.experiment.curves_plot import plot_curves
from fedpeft_jax.experiment.driver import RunResult, run
from fedpeft_jax.experiment.live_plot import LivePlot
from fedpeft_jax.experiment.phases import (
    Phase,
    enter_phase,
    freeze_table,
    make_phases,
    start,
)
from fedpeft_jax.experiment.preparation import Prepared, prepare
from fedpeft_jax.experiment.privacy_plan import PrivacyPlan, plan_privacy
from fedpeft_jax.experiment.private_rounds import with_privacy
from fedpeft_jax.experiment.reporting import (
    ConsoleReporter,
    print_summary,
)
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.state import RunState, variables_of
from fedpeft_jax.experiment.tensorboard import TensorBoardCallback
from fedpeft_jax.experiment.training import (
    Program,
    advance,
    compile_rounds,
    evaluate,
    make_program,
)

__all__ = [
    "FIELDS",
    "Callback",
    "Clients",
    "ConsoleReporter",
    "LivePlot",
    "Phase",
    "Prepared",
    "PrivacyPlan",
    "Program",
    "RunConfig",
    "RunFolder",
    "RunResult",
    "RunState",
    "TensorBoardCallback",
    "advance",
    "compile_rounds",
    "configure",
    "enter_phase",
    "evaluate",
    "freeze_table",
    "load_variables",
    "make_algorithm",
    "make_clients",
    "make_model",
    "make_phases",
    "make_program",
    "plan_privacy",
    "plot_curves",
    "prepare",
    "print_summary",
    "run",
    "start",
    "variables_of",
    "with_privacy",
]
