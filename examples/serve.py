"""Serve an agent: a page to talk to it in the browser, and the protocols that existing clients speak.

python examples/serve.py model=demo/agent.nemo [port=8998] [callers=16]        then open http://127.0.0.1:8998
"""

from __future__ import annotations

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("serve")
def main(cfg: DictConfig) -> None:
    """Serves an agent to many callers until Ctrl-C or SIGTERM: docs/serving.md tells how to connect, deploy, secure."""
    from nemo_duplex.inputs import existing_file, plain
    from nemo_duplex.scripts.hardware import require_device, use_threads

    path = existing_file(cfg.model, "model")
    from nemo_duplex.serving.config import ServerConfig
    from nemo_duplex.serving.run import address, check_tls, listen, run

    config = ServerConfig.of(plain(cfg))
    check_tls(config)
    sockets = listen(config)
    use_threads(cfg.threads)
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.serving.app import make_app
    from nemo_duplex.serving.logs import use_log

    model = DuplexS2SModel.restore_from(str(path), map_location=require_device(cfg.device))
    app = make_app(model, config)
    use_log(config.log)
    where = address(config, sockets)
    print(f"Talk to the agent: {where}", flush=True)
    print(
        f"Clients: {where.replace('http', 'ws', 1)}/api/chat (Moshi), {where}/v1 (OpenAI)    Help: docs/serving.md", flush=True
    )
    run(app, config, sockets)


if __name__ == "__main__":
    main()
