"""The server as a Ray Serve deployment: the same ASGI application, on as many replicas as there are.

pip install "ray[serve]>=2.50"
serve run deploy.ray_serve:agent model=demo/agent.nemo callers=16                        on this machine
serve run deploy.ray_serve:agent model=/models/agent.nemo host=0.0.0.0 api_keys=/keys    for others, with an http_options.host

Arguments are the keys of conf/serve.yaml. A WebSocket stays on the replica that answered it.
"""

from __future__ import annotations

from pathlib import Path

from ray import serve
from ray.serve import Application

PATHS = ("model", "api_keys", "recordings.folder")


@serve.deployment(name="agent")
@serve.ingress()
class Agent:
    """One replica: an agent and its engine."""

    def __init__(self, keys: list[str]) -> None:
        import torch

        from nemo_duplex.inputs import plain
        from nemo_duplex.models.duplex_s2s import DuplexS2SModel
        from nemo_duplex.scripts.config import ScriptConfig
        from nemo_duplex.serving.app import make_app
        from nemo_duplex.serving.config import ServerConfig
        from nemo_duplex.serving.logs import use_log

        cfg = ScriptConfig("serve", keys).checked()
        torch.set_num_threads(cfg.threads or torch.get_num_threads())
        config = ServerConfig.of(plain(cfg))
        self._app = make_app(DuplexS2SModel.restore_from(cfg.model, map_location=cfg.device), config)
        use_log(config.log)

    def __serve_build_asgi_app__(self):
        return self._app

    def check_health(self) -> None:
        """Ray replaces a replica whose model makes no progress."""
        if not self._app.state.server.is_healthy:
            raise RuntimeError("the model makes no progress")


def agent(arguments: dict[str, str]) -> Application:
    """The application of `serve run`."""
    from nemo_duplex.scripts.config import ScriptConfig

    given = {key: str(Path(value).absolute()) if key in PATHS else value for key, value in arguments.items()}
    keys = [f"{key}={value}" for key, value in given.items()]
    cfg = ScriptConfig("serve", keys).checked()  # a wrong key is refused here, before a replica starts
    options = {"num_cpus": cfg.threads or 1, "num_gpus": 1 if cfg.device.startswith("cuda") else 0}
    deployment = Agent.options(
        ray_actor_options=options,
        max_ongoing_requests=cfg.callers + cfg.limits.waiting + 8,  # calls, and what asks for health and metrics
        graceful_shutdown_timeout_s=cfg.drain_seconds,
    )
    return deployment.bind(keys)
