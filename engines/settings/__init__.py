"""
Everything that can be set, from STUDIO_* variables, read once at the start. `./run.sh help` lists them, which
needs no installation, so this package imports no library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from engines.settings import values
from engines.settings.installation import default_home
from engines.settings.values import SettingsError as SettingsError
from engines.settings.values import variable as variable

HASHED = "$argon2"  # how a password begins that is given as its hash
SHORTEST_PASSWORD = 6
LOG_LEVELS = ("debug", "info", "warning", "error")
OUTBOX = "restored"  # beside the inbox, where none is named
CLOCK = r"\s*([01]?[0-9]|2[0-3]):([0-5][0-9])\s*"
HOURS = f"{CLOCK}-{CLOCK}"  # from and to, as engines/jobs/quiet.py reads them


def _setting(default: Any, zh: str, en: str, secret: bool = False) -> Any:
    """`secret`: it is not shown where settings are."""
    return field(default=default, repr=not secret, metadata={"zh": zh, "en": en})


@dataclass(frozen=True)
class Settings:
    home: Path = _setting(default_home(), "输出、模型与状态所在的文件夹", "folder of outputs, models and state")
    host: str = _setting(
        "0.0.0.0", "监听地址;127.0.0.1 表示仅限本机", "address to listen on; 127.0.0.1 keeps it on this machine"
    )
    port: int = _setting(7860, "监听端口", "port to listen on")
    names: str = _setting(
        "",
        "允许用来打开本页的其他主机名,逗号分隔,可用 *",
        "further host names to answer to, comma-separated, * for any",
    )
    proxy: str = _setting(
        "", "可信反向代理的地址或网段,逗号分隔", "addresses or networks of reverse proxies to believe, comma-separated"
    )
    path: str = _setting(
        "",
        "在反向代理后面时所在的路径,如 /studio;空表示根",
        "path below which the page is served, behind a reverse proxy, like /studio; empty: the root",
    )
    accel: str = _setting(
        "",
        "图片由 nginx 直接发送:其 internal 位置,如 /_pictures;须设 STUDIO_PROXY;空表示不用",
        "let nginx deliver pictures: its internal location, like /_pictures; needs STUDIO_PROXY; empty: no",
    )
    backend: str = _setting(
        "auto", "默认后端:auto、pytorch、edge 或引擎名", "default backend: auto, pytorch, edge, or an engine's name"
    )
    upload_mb: int = _setting(30, "上传文件上限(MB)", "largest upload, MB")
    decode_s: float = _setting(
        8.0, "解码一张照片最多可用的处理器时间(秒)", "seconds of processor time to decode a photo in"
    )
    queue_limit: int = _setting(256, "最多同时排队的任务数", "most jobs that may wait at one time")
    keep_days: int = _setting(7, "上传的照片保留天数", "days until uploaded photos are deleted")
    log: str = _setting("info", "日志级别:" + "、".join(LOG_LEVELS), "log level: " + ", ".join(LOG_LEVELS))
    memory_gb: float = _setting(
        0.0,
        "模型最多可用的内存(GB);0 表示任务开始时空闲的八成",
        "memory that models may take, GB; 0: 80 % of what is free as a job begins",
    )
    password: str = _setting(
        "",
        "本服务的密码(或其 Argon2 散列):设置后须登录或凭邀请链接进入",
        "password of this house, or its Argon2 hash: then one logs in, or comes by an invitation",
        secret=True,
    )
    hf_mirror: str = _setting(
        "", "替代 huggingface.co 的下载地址", "address to download models from in the place of huggingface.co"
    )
    pause_s: float = _setting(0.0, "每个画图任务之后的停顿(秒)", "seconds of rest after each picture job")
    hot_c: float = _setting(
        80.0,
        "处理器达到此温度(°C)时不开始新任务;0 表示不限",
        "°C of the processor from which no job is begun; 0: never mind",
    )
    cool_c: float = _setting(72.0, "降到此温度(°C)后继续", "°C at which jobs go on")
    outputs_gb: float = _setting(
        0.0,
        "作品最多占用的空间(GB),超出一天后从最旧的删起,收藏的和共享相册里的不删;0 表示不限",
        "GB that pictures may take; over it for a day, the oldest go, no favourites and none of the album; 0: no limit",
    )
    quiet_hours: str = _setting(
        "",
        "安静时段,如 22:00-07:00:其间不开始批量照片与引擎验证",
        "quiet hours, like 22:00-07:00, in which no batch of photos and no proof of engines is begun",
    )
    albums: str = _setting(
        "",
        "相框和“作品”还可显示的文件夹(只读),逗号分隔;在相框里叫 folder:文件夹名",
        "further folders for frames and Pictures to show, read only, comma-separated; frames call them folder:NAME",
    )
    wall_approval: bool = _setting(
        False,
        "访客在相框前做的图,先由主人看过再上墙;on 或 off",
        "what visitors make at a frame waits for the owner's approval before it is on the wall; on or off",
    )
    feeds: str = _setting(
        "",
        "相框还可显示的图片列表(JSON Feed 或地址列表),如 名称=https://…,逗号分隔;在相框里叫 feed:名称",
        "lists of pictures for frames (JSON Feed, or addresses), NAME=https://..., comma-separated; there: feed:NAME",
        secret=True,  # an address may have a token in it
    )
    immich: str = _setting(
        "",
        "immich 的地址,如 http://192.168.1.5:2283;相框可显示 immich(收藏的)与 immich:相册",
        "address of immich, like http://192.168.1.5:2283; frames may show immich (favourites) and immich:ALBUM",
    )
    immich_key: str = _setting("", "immich 的 API 密钥", "API key of immich", secret=True)
    https: bool = _setting(
        False,
        "用 https 提供服务,证书由本机自签(同 --https);on 或 off",
        "serve https, with certificates of this home's own (as --https does); on or off",
    )
    mcp: bool = _setting(
        False, "提供 MCP 服务(/mcp,须凭令牌);on 或 off", "serve MCP at /mcp, to programs with a token; on or off"
    )
    inbox: str = _setting(
        "",
        "放入即修复的文件夹:其中每张照片自动修复,原件不动;空表示不用",
        "folder whose every photo is restored by itself, originals untouched; empty: none",
    )
    outbox: str = _setting(
        "",
        "修好的照片放入的文件夹;空表示收件文件夹旁的 restored",
        "folder that what was restored goes into; empty: restored, beside the inbox",
    )
    inbox_per_hour: int = _setting(
        0, "每小时最多自动修复的照片数;0 表示不限", "most photos of the inbox to restore within an hour; 0: any number"
    )
    inbox_immich: bool = _setting(
        False,
        "修好的照片也传到 immich,与那里的原件叠在一起;on 或 off",
        "upload what was restored to immich too, onto a stack with its original there; on or off",
    )
    mqtt: str = _setting(
        "",
        "MQTT 服务器,如 mqtt://用户@主机:1883 或 mqtts://主机:8883:相框自动出现在 Home Assistant;空表示不用",
        "MQTT broker, like mqtt://user@host:1883 or mqtts://host:8883: frames appear in Home Assistant; empty: none",
    )
    mqtt_password: str = _setting("", "MQTT 服务器的密码", "password at the MQTT broker", secret=True)

    queue: str = _setting(
        "",
        "用 Redis(经 Celery)通知各台机器取任务,如 redis://:密码@主机:6379/0;工作室与帮忙的机器都要设;空表示不用",
        "call machines to their jobs over Redis, by Celery, like redis://:password@host:6379/0; to be set at the studio"
        " and at those machines; empty: they ask",
        secret=True,
    )
    server: str = _setting(
        "",
        "为哪个工作室干活(./run.sh worker),如 http://192.168.1.5:7860",
        "the studio that this machine works for (./run.sh worker), like http://192.168.1.5:7860",
    )
    worker_token: str = _setting("", "在那个工作室的令牌", "this machine's token there", secret=True)
    wake: bool = _setting(False, "工作室可以唤醒这台机器;on 或 off", "the studio may wake this machine; on or off")
    mdns: bool = _setting(
        False,
        "在局域网里公布自己,别的机器不写地址也能来帮忙;on 或 off",
        "announce this studio in the local network, so that machines that help find it; on or off",
    )
    parts: str = _setting(
        "",
        "由别的机器(./run.sh parts)代算的模型部件:text_encoder=http://192.168.1.6:7870,decoder=…;空表示不用",
        "parts of models that other machines lend (./run.sh parts): text_encoder=http://192.168.1.6:7870,decoder=...",
    )
    parts_token: str = _setting("", "出借部件用的令牌,两边相同", "token of lent parts, the same there", secret=True)

    @classmethod
    def load(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings. SettingsError: a STUDIO_ variable is unknown or unusable. STUDIO_TEST_* is the tests'."""
        settable = {variable(f.name): f for f in fields(cls)}
        ours = {
            name: text
            for name, text in env.items()
            if name.startswith("STUDIO_") and not name.startswith("STUDIO_TEST_")
        }
        if unknown := sorted(set(ours) - set(settable)):
            raise SettingsError(f"{unknown[0]} is not a setting. Known: {', '.join(settable)}")
        given = {
            settable[name].name: values.read(name, text, type(settable[name].default)) for name, text in ours.items()
        }
        settings = cls(**{"home": cls.home.resolve(), **given})
        settings._check()
        return settings

    def _check(self) -> None:
        for name, low, high in (
            ("port", 0, 65535), ("upload_mb", 1, 2000), ("keep_days", 0, 36500), ("memory_gb", 0, 10000),
            ("queue_limit", 1, 100_000), ("pause_s", 0, 3600), ("hot_c", 0, 120), ("cool_c", 30, 120),
            ("outputs_gb", 0, 1_000_000), ("decode_s", 1, 3600), ("inbox_per_hour", 0, 1_000_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{variable(name)}={value}: must be from {low} to {high}")
        if self.hot_c and self.cool_c >= self.hot_c:
            raise SettingsError(f"STUDIO_COOL_C={self.cool_c:g}: must be below STUDIO_HOT_C={self.hot_c:g}")
        if self.log not in LOG_LEVELS:
            raise SettingsError(f"STUDIO_LOG={self.log}: must be one of {', '.join(LOG_LEVELS)}")
        if 0 < len(self.password) < SHORTEST_PASSWORD:
            raise SettingsError(f"STUDIO_PASSWORD: must have {SHORTEST_PASSWORD} letters at least")
        if self.quiet_hours.strip() and not re.fullmatch(HOURS, self.quiet_hours):
            raise SettingsError(f"STUDIO_QUIET_HOURS={self.quiet_hours}: must be hours of the day, like 22:00-07:00")
        for proxy in self.proxies:
            try:
                ip_network(proxy, strict=False)
            except ValueError as exc:
                raise SettingsError(f"STUDIO_PROXY={self.proxy}: {exc}") from exc
        for name in ("path", "accel"):
            values.check_path(variable(name), getattr(self, name))
        if self.accel and not self.proxies:
            raise SettingsError("STUDIO_ACCEL: needs STUDIO_PROXY, as only the proxy that it names may be given it")
        for name in ("inbox", "outbox"):
            if text := getattr(self, name):
                values.folder(variable(name), text)
        if (inbox := self.inbox_folder) and (outbox := self.outbox_folder) and inbox.is_relative_to(outbox):
            raise SettingsError(f"STUDIO_OUTBOX={outbox}: must not be the inbox, nor a folder that it lies in")
        if self.mqtt:
            values.check_broker(self.mqtt)
        if self.hf_mirror and not self.hf_mirror.startswith(("https://", "http://")):
            raise SettingsError(f"STUDIO_HF_MIRROR={self.hf_mirror}: must begin with https:// or http://")
        values.addresses(variable("feeds"), self.feeds)
        values.check_lenders(self.parts, self.parts_token)
        for name in ("immich", "server"):
            if text := getattr(self, name):
                values.check_address(variable(name), text)
        if self.mdns and self.host in ("127.0.0.1", "::1", "localhost"):
            raise SettingsError(f"STUDIO_MDNS: nobody can come to STUDIO_HOST={self.host}; 0.0.0.0 lets them")
        if self.queue and not self.queue.startswith(("redis://", "rediss://")):
            raise SettingsError("STUDIO_QUEUE: must be an address of Redis, like redis://127.0.0.1:6379/0")
        if bool(self.immich) != bool(self.immich_key) or (self.inbox_immich and not self.immich):
            raise SettingsError("STUDIO_IMMICH, STUDIO_IMMICH_KEY: each needs the other, and STUDIO_INBOX_IMMICH both")

    @property
    def outputs(self) -> Path:
        return self.home / "outputs"

    @property
    def phone_links(self) -> Path:
        """Where pictures lie that phones send to frames, or take from them."""
        return self.state / "frame" / "links"

    @property
    def uploads(self) -> Path:
        return self.home / "uploads"

    @property
    def cache(self) -> Path:
        """What a browser has sent to the page, before anything was asked with it."""
        return self.home / "tmp"

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def checkpoints(self) -> Path:
        """What bundles can be built from, fetched or put here by hand; folders of photographs to calibrate with too."""
        return self.home / "checkpoints"

    @property
    def loras(self) -> Path:
        """LoRA files, fetched or put here by hand."""
        return self.home / "loras"

    @property
    def presets(self) -> Path:
        """What people have kept of their own (webui/own_presets.py)."""
        return self.home / "presets"

    @property
    def state(self) -> Path:
        """The queue's database and the caches."""
        return self.home / "state"

    @property
    def album_folders(self) -> dict[str, Path]:
        """The folders of STUDIO_ALBUMS by their names, in its order: of two with the same one, the first."""
        folders: dict[str, Path] = {}
        for text in filter(None, map(str.strip, self.albums.split(","))):
            path = values.folder(variable("albums"), text)
            folders.setdefault(path.name, path)
        return folders

    @property
    def feed_addresses(self) -> dict[str, str]:
        """The addresses of STUDIO_FEEDS by their names. SettingsError: one has none, or has that of another."""
        return values.addresses(variable("feeds"), self.feeds)

    @property
    def inbox_folder(self) -> Path | None:
        """The folder whose photos are restored by themselves (webui/watch); None: there is none."""
        return values.folder(variable("inbox"), self.inbox) if self.inbox.strip() else None

    @property
    def outbox_folder(self) -> Path | None:
        """Where they go; None: nowhere, as there is no inbox."""
        inbox = self.inbox_folder
        if inbox is None or not self.outbox.strip():
            return inbox and inbox.parent / OUTBOX
        return values.folder(variable("outbox"), self.outbox)

    @property
    def proxies(self) -> tuple[str, ...]:
        return tuple(proxy.strip() for proxy in self.proxy.split(",") if proxy.strip())

    @property
    def host_names(self) -> tuple[str, ...]:
        return tuple(name.strip().lower() for name in self.names.split(",") if name.strip())
