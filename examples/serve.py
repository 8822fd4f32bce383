"""Serve an agent: a page to talk to it in the browser, and the protocols that existing clients speak.

python examples/serve.py model=demo/agent.nemo [port=8998] [callers=16]        then open http://127.0.0.1:8998
"""

from __future__ import annotations

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("serve")
def main(cfg: DictConfig) -> None:
    """Serves an agent until Ctrl-C or SIGTERM."""
    from nemo_duplex.inputs import existing_file
    from nemo_duplex.scripts.hardware import require_device, use_threads

    path = existing_file(cfg.model, "model")
    use_threads(cfg.threads)
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.serving.app import make_app
    from nemo_duplex.serving.config import ServerConfig
    from nemo_duplex.serving.run import run

    config = ServerConfig(cfg.callers, cfg.host, cfg.port, cfg.prompt_tokens, cfg.int8)
    model = DuplexS2SModel.restore_from(str(path), map_location=require_device(cfg.device))
    print(f"Talk to the agent: http://{config.host}:{config.port}", flush=True)
    run(make_app(model, config), config)


if __name__ == "__main__":
    main()
