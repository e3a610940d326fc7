"""Declares every setting once: type, default, unit, meaning.

Comes in: values, as `config_layers` has read them. Goes out: one frozen `Settings`, or what is wrong with a
value. Everything that is a part of the program is handed its own section.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from stream import rhythm
from stream.access import Client, is_loopback
from stream.campaigns.declare import Campaign, see_campaigns
from stream.campaigns.declare import Limits as CampaignLimits
from stream.features import (
    DEFAULT_FEATURES,
    REVIEW_FEATURES,
    SHOP_EVENTS,
    Feature,
    FeatureTable,
    over_time,
)
from stream.kinds import DEFAULT_KINDS, DERIVED, FALLBACK_KIND, KindRule
from stream.levels.book import layout
from stream.levels.declare import Level, step_names
from stream.levels.declare import check as check_levels
from stream.limits import Limits
from stream.populations import DEFAULT_POPULATIONS, Population, Populations, check
from stream.scores.declare import DEFAULT_SCORES, HABITS, INPUTS, NEEDED, Score, Wanted
from stream.segments import MOST_MARGIN, PublishRule
from stream.sentinels import sentinel_address
from stream.told import WRONG, ToldError
from stream.units import parse_duration
from stream.webhooks.declare import Endpoint, see_endpoints
from stream.webhooks.rules import Rules

PLACEHOLDER_IDS = (
    "null",
    "(null)",
    "<null>",
    "<nil>",
    "\\n",
    "<na>",
    "#n/a",
    "undefined",
    "nan",
    "none",
    "nil",
    "n/a",
    "na",
    "n.a.",
    "-",
    "--",
    "?",
    "0",
    "-1",
    "unknown",
    "anonymous",
    "guest",
    "(not set)",
    "(none)",
    "(unknown)",
    "(not provided)",
    "[object object]",
    "00000000-0000-0000-0000-000000000000",
    # Blanks that no program strips by itself.
    "\u00a0",
    "\u200b",
    "\u3000",
    "\ufeff",
    # Templates that nobody filled in.
    "{{user_id}}",
    "{{ user_id }}",
    "{{userid}}",
    "{{user.id}}",
    "{{ user.id }}",
    "{{customer.id}}",
    "{{customer_id}}",
    "${user.id}",
    "${userid}",
    "${user_id}",
    "{user_id}",
    "{userid}",
    "%user_id%",
    "%%user_id%%",
    "<user_id>",
)

Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, json_schema_extra={"unit": "seconds"}),
]


class ConfigError(ToldError):
    """A setting that cannot be read; the message names key, value and expectation."""

    exit_code = WRONG


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def setting(default: Any, meaning: str, unit: str | None = None, **limits: Any) -> Any:
    """One setting: its default, what it means, and its unit where it has one."""
    extra: JsonDict | None = {"unit": unit} if unit else None
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


class Broker(Section):
    bootstrap: str = setting("127.0.0.1:9092", "Kafka brokers, host:port, comma-separated")
    group: str = setting("segstream-activity", "consumer group of the activity workers")
    group_protocol: Literal["auto", "consumer", "classic"] = setting(
        "auto",
        "membership: KIP-848 (consumer), classic with range, or whichever the broker speaks",
    )
    session_timeout_seconds: Seconds = setting(
        10.0, "a silent member is taken for dead after this (classic membership only)"
    )
    max_poll_interval_seconds: Seconds = setting(
        300.0, "a member that does not poll for this long loses its partitions"
    )
    fetch_wait_seconds: Seconds = setting(0.010, "how long a fetch may wait for data")
    properties: dict[str, str] = setting(
        {}, "further librdkafka properties, such as security.protocol or sasl.username"
    )
    oauth_provider: str = setting(
        "",
        "module:function that gives a token and the time it expires (seconds since 1970), for "
        "sasl.mechanism = OAUTHBEARER; called with sasl.oauthbearer.config; empty for none",
        pattern=r"^(\w+(\.\w+)*:\w+)?$",
    )

    @field_validator("properties")
    @classmethod
    def _places_users(cls, properties: dict[str, str]) -> dict[str, str]:
        if properties.get("partitioner", "murmur2_random") not in {"murmur2", "murmur2_random"}:
            raise ValueError(
                "partitioner: expected murmur2_random, or none at all; any other would put users into "
                "partitions that are not theirs"
            )
        return properties

    @model_validator(mode="after")
    def _asks_for_tokens(self) -> Self:
        named = self.properties.get("sasl.mechanism", self.properties.get("sasl.mechanisms"))
        if self.oauth_provider and named != "OAUTHBEARER":
            raise ValueError(
                "oauth_provider: nobody asks for its tokens unless broker.properties has "
                "sasl.mechanism = OAUTHBEARER"
            )
        return self


class Topics(Section):
    clickstream: str = setting("clickstream", "topic of browsing events, keyed by user")
    purchases: str = setting("purchases", "topic of orders and refunds, keyed by user")
    changes: str = setting("segment-changes", "topic of segment changes, one record a change")
    models: str = setting("segment-models", "compacted topic of published models")
    triggers: str = setting("campaign-triggers", "topic of what campaigns decided to send")
    control: str = setting(
        "campaign-control", "topic of who gets nothing, in which zone users are, what is paused"
    )
    dlq_suffix: str = setting(".dlq", "a refused message goes to its topic's name plus this")
    partitions: int = setting(
        12,
        "partitions of clickstream, purchases, changes, triggers and control",
        "partitions",
        ge=1,
        le=10_000,
    )
    replication: int = setting(1, "copies of each partition", "brokers", ge=1)
    input_retention_seconds: Seconds = setting(
        30 * 86_400.0, "how long events are kept; 0 keeps them for ever (needed to replay history)"
    )
    changes_retention_seconds: Seconds = setting(
        90 * 86_400.0, "how long changes are kept; 0 keeps them for ever"
    )
    triggers_retention_seconds: Seconds = setting(
        30 * 86_400.0, "how long triggers of campaigns are kept; 0 keeps them for ever"
    )

    @property
    def inputs(self) -> tuple[str, str]:
        """The input topics; a topic's place here is its index in columns and offsets."""
        return (self.clickstream, self.purchases)

    def dlq(self, topic: str) -> str:
        return topic + self.dlq_suffix


class Store(Section):
    url: str = setting("redis://127.0.0.1:6379/0", "Redis or Valkey, as a redis:// URL")
    sentinel: str = setting(
        "",
        "Sentinels that know the master, as redis://user:password@host:26379,host:26379/name-of-the-"
        "master, or rediss:// for TLS to them; user, password, database and TLS of the store itself are "
        "those of store.url, whose host is not used then; empty: store.url leads to the store",
    )
    namespace: str = setting("segstream", "prefix of every key", pattern=r"^[A-Za-z0-9_.-]+$")
    timeout_seconds: Seconds = setting(5.0, "an answer later than this counts as none", gt=0)
    commit_deadline_seconds: Seconds = setting(
        60.0, "a commit is repeated under the same id until this long after its first try"
    )
    outbox_cap: int = setting(
        2_000,
        "entries in a partition's outbox (up to 1,000 changes each) at which its worker waits",
        "entries",
        ge=1,
    )
    namespace_key: str = setting(
        "",
        "secret that keys the users' hashes, the ids of changes and the signatures of marks; empty "
        "draws one and keeps it in the store. Two namespaces with the same key and the same log "
        "come to the same models and ids",
    )
    accept_loss: bool = setting(
        False, "start a partition anew when its state is gone from the store"
    )

    @field_validator("sentinel")
    @classmethod
    def _names_sentinels(cls, sentinel: str) -> str:
        try:
            if sentinel:
                sentinel_address(sentinel)
        except ValueError:
            raise ValueError("expected redis://host:26379,host:26379/name-of-the-master") from None
        return sentinel

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            database = parts.path.strip("/")
            # Reading the port is what finds one that is no number.
            well = parts.scheme == "unix" or (
                parts.scheme in {"redis", "rediss"}
                and parts.port != 0
                and (not database or database.isdecimal())
            )
        except ValueError:
            well = False
        if not well:
            raise ValueError(
                "expected redis://host:port/number, rediss:// for TLS, or unix:///path/of/socket"
            )
        return url


class Clock(Section):
    mode: Literal["live", "watermark"] = setting(
        "live", "what time it is: the wall clock, or the marks of the shop's clock (replay)"
    )
    mark_seconds: Seconds = setting(3_600.0, "shop time from one mark to the next (watermark mode)")
    idle_seconds: Seconds = setting(
        5.0, "watermark mode, a log without marks: events wait at most this long to be folded"
    )
    guard_users: int = setting(
        3,
        "watermark mode, a log without marks: a partition's time goes on to what so many of its "
        "users have reached, so that one with a wrong clock takes nobody along",
        "users",
        ge=1,
    )


class Worker(Section):
    batch_seconds: Seconds = setting(0.010, "how long events are gathered before they are folded")
    batch_events: int = setting(
        100_000,
        "events gathered at the most when there is a backlog, over all partitions",
        "events",
        ge=1,
    )
    sweep_seconds: Seconds = setting(5.0, "live mode: everyone is looked at this often", gt=0)
    late_seconds: Seconds = setting(
        90 * 86_400.0, "an event this much older than its record's timestamp is dropped as late"
    )
    future_seconds: Seconds = setting(
        300.0, "an event this far ahead of its record's timestamp is clamped to that limit"
    )
    decoder: Literal["auto", "compiled", "plain"] = setting(
        "auto",
        "how messages are parsed: compiled needs segstream[fast]; auto is compiled where that is "
        "installed",
    )
    remember_clicks_seconds: Seconds = setting(
        3_600.0,
        "a click whose message id came before in this time, by the record times of its topic, is "
        "a duplicate; up to an eighth more is remembered",
        ge=60,
    )
    remember_purchases_seconds: Seconds = setting(7 * 86_400.0, "the same of purchases", ge=60)
    remember_orders_seconds: Seconds = setting(
        180 * 86_400.0,
        "an order is remembered this long from its first message on, so that it can be refunded, "
        "corrected, or said again; 125 to 190 bytes each in a worker's memory, and about 145 in the store",
        ge=60,
    )
    remembered_ids: int = setting(
        1_000_000,
        "message ids of a partition's topic above which the oldest are forgotten early, whenever an "
        "eighth of their time begins; 32 to 64 bytes each in a worker's memory, and 8 in the store",
        "ids",
        ge=1_000,
    )
    shop_events: tuple[str, ...] = setting(
        SHOP_EVENTS,
        "events by which the shop acts and not the customer: they are no sign of life",
        "events",
    )
    message_bytes: int = setting(65_536, "a larger message is refused", "bytes", ge=256)
    unwrap: str = setting(
        "",
        "field of a message in which the one is that is to be read, where programs have wrapped it: such as "
        "payload.after (Debezium), payload (Kafka Connect), Message (SNS), detail (EventBridge), data "
        "(CloudEvents); a message that has nothing there is read as it is",
        pattern=r"^([^.\s]+(\.[^.\s]+)*)?$",
    )
    misplaced: Literal["refuse", "accept"] = setting(
        "refuse",
        "what becomes of a new user's event in another partition than murmur2 of the user's id says: "
        "a dead letter that `segstream rekey` puts right; accept counts it there, and the user may "
        "live twice",
    )
    placeholder_ids: tuple[str, ...] = setting(
        PLACEHOLDER_IDS,
        "ids of users, messages and orders that are none, as programs write them where they have "
        "none; an empty id is one of them, and neither case nor blanks around count",
    )
    reject_consecutive_limit: int = setting(
        1_000, "this many refusals in a row are a flood", "messages", ge=1
    )
    reject_ratio_limit: float = setting(
        0.5, "a larger share of refusals among recent messages is a flood", gt=0, le=1
    )
    reject_ratio_window: int = setting(
        10_000, "how many messages the ratio looks back on", "messages", ge=10
    )
    on_reject_flood: Literal["alert", "stop"] = setting(
        "alert",
        "what a flood of refusals does: an alert while the worker goes on, or the letters are filed "
        "and the worker stops",
    )
    letters_per_second: float = setting(
        1_000.0,
        "letters a worker files at this rate at the most; where they come faster, it reads the "
        "partition they come from more slowly, and drops none",
        "letters/s",
        gt=0,
    )
    buffer_events: int = setting(
        200_000,
        "more events than this, read and not yet folded, pause a partition's topics until half "
        "of them is left",
        "events",
        ge=1_000,
    )

    def limits(self) -> Limits:
        """What is remembered of past messages."""
        clicks, purchases, orders = (
            round(seconds * 1_000)
            for seconds in (
                self.remember_clicks_seconds,
                self.remember_purchases_seconds,
                self.remember_orders_seconds,
            )
        )
        return Limits((clicks, purchases), orders, self.remembered_ids)


class Money(Section):
    currency: str = setting(
        "",
        "reporting currency (ISO 4217) into which amounts are converted; empty: the first that a "
        "message names is that of the namespace, and messages in others are refused",
        pattern=r"^([A-Z]{3})?$",
    )
    rates: dict[str, float] = setting(
        {}, "what a unit of each other currency is worth in the reporting one, such as USD = 0.92"
    )
    default: str = setting(
        "",
        "currency of a message that names none; empty: the reporting currency",
        pattern=r"^([A-Z]{3})?$",
    )

    @field_validator("rates")
    @classmethod
    def _are_rates(cls, rates: dict[str, float]) -> dict[str, float]:
        for currency, rate in rates.items():
            if re.fullmatch("[A-Z]{3}", currency) is None:
                raise ValueError(f"{currency!r} is no currency: three capital letters, as in USD")
            if not 1e-9 <= rate <= 1e9:
                raise ValueError(f"the rate of {currency} is no rate: {rate:g}")
        return rates

    @model_validator(mode="after")
    def _fit_together(self) -> Money:
        if not self.currency and (self.rates or self.default):
            raise ValueError("rates and default need money.currency, the reporting currency")
        if self.rates.get(self.currency, 1.0) != 1.0:
            raise ValueError(f"the rate of {self.currency}, the reporting currency, is 1")
        if self.default and self.default not in {self.currency, *self.rates}:
            raise ValueError(f"the rate of {self.default}, money.default, is not in money.rates")
        return self


class Reviews(Section):
    enabled: bool = setting(
        False,
        "read the ratings and texts of reviews: there are two features more, reviews_180d and "
        "sentiment_90d, unless features of these names are declared",
    )
    worst_rating: float = setting(1.0, "the worst rating that a review can give")
    best_rating: float = setting(5.0, "the best one; what lies halfway is neutral")

    @model_validator(mode="after")
    def _has_a_range(self) -> Reviews:
        if not self.worst_rating < self.best_rating:
            raise ValueError("worst_rating is not below best_rating")
        return self


class Learning(Section):
    segments: int = setting(
        6,
        "number of segments (k) of a population that does not say its own",
        "segments",
        ge=2,
        le=64,
    )
    sample_users: int = setting(
        4_096, "users in the uniform sample that scaling and refits use", "users", ge=100
    )
    first_model_users: int = setting(
        400, "users needed in the sample before the first model is learned", "users", ge=20
    )
    refit_seconds: Seconds = setting(60.0, "time between two refits, by the clock in use")
    refit_updates: int = setting(
        0, "refit after so many updates as well; 0 goes by time alone", "updates", ge=0
    )
    alarm_share: float = setting(
        0.5,
        "so often, as a share of the time or updates between refits, a sample is looked at for an "
        "alarm; none brings a refit sooner",
        ge=0,
        le=1,
    )
    drift_delta: float = setting(
        0.002, "ADWIN's rate of false alarms about distances to centroids", gt=0, lt=1
    )
    drift_psi: float = setting(
        0.25, "a population stability index of a feature above this is an alarm", gt=0
    )
    small_share: float = setting(
        0.01, "a segment with a smaller share of users is an alarm", ge=0, lt=1
    )
    separation: float = setting(
        0.6,
        "two segments whose split explains less of the variance between them are an alarm",
        ge=0,
        le=1,
    )
    challenge_gain: float = setting(
        0.005, "a challenger needs this share less inertia, in two refits running", ge=0, lt=1
    )
    spare_segments: int = setting(
        2, "segments more than k from which a challenger merges down", "segments", ge=1, le=32
    )
    move_threshold: float = setting(
        0.1, "a centroid that moved less than this is not published again", "sd", ge=0
    )
    starts: int = setting(8, "k-means++ starts of the first model", "starts", ge=1)
    identity_overlap: float = setting(
        0.5,
        "an id survives a refit at this overlap, relative to the smaller of the two",
        gt=0,
        le=1,
    )
    seed: int = setting(1, "seed of the starts", ge=0)
    word_share: float = setting(
        0.8,
        "a word in a segment's name holds, in natural units, of the median member and of this "
        "share of all of them at the least",
        ge=0.5,
        le=1,
    )

    @property
    def named_again_days(self) -> float:
        """Days until names are looked at again, at the most: as long as samples are apart."""
        return self.refit_seconds * self.alarm_share / 86_400.0


class Scoring(Section):
    inputs: tuple[str, ...] = setting(
        INPUTS,
        "features that scores are computed from; of the default ones, those that are declared",
    )
    habits: tuple[str, ...] = setting(
        HABITS,
        "features in which somebody may be unusual; of the default ones, those that are declared",
    )
    users: int = setting(
        4_096, "customers of the sample who are followed, at the most", "users", ge=100, le=65_536
    )
    look_days: int = setting(
        14,
        "from one look at a customer to the next; what waits to be known is bounded by the users, and "
        "by how often this fits into the longest horizon",
        "days",
        ge=1,
        le=365,
    )
    labels: int = setting(
        400, "looks of which all is known, before a horizon has scores", "looks", ge=50
    )
    falls: bool = setting(
        True,
        "what is foretold of whoever does nothing falls with time, whatever was learned; without it, it "
        "may rise, as in a shop of yearly gifts",
    )


class Publish(Section):
    margin: float = setting(
        0.2,
        "a margin z over this moves a user: 0 is the border, .5 the other centroid; of acts that "
        "find the same other segment nearest, margins add up",
        ge=0,
        le=MOST_MARGIN,
    )
    silence_margin: float = setting(
        0.1,
        "a margin over this moves a user whom only time carried there, whose features fade without "
        "chance; `margin`, if that is less",
        ge=0,
        le=MOST_MARGIN,
    )
    apart: float = setting(
        25.0,
        "two segments nearer than this ask for a margin greater in the measure in which they are "
        "nearer, up to .45: their squared distance over the mean squared distance of users to their "
        "centroid, a feature; 0 asks the same between all",
        ge=0,
    )
    return_seconds: Seconds = setting(
        45 * 86_400.0,
        "within this time neither time nor a model takes a user back to the segment before, only acts "
        "and a population's rule do; 0 holds nobody",
    )
    usual_gaps: float = setting(
        1.5,
        "who ordered less than so many of their own mean gaps between orders ago, and less than "
        "`return_seconds`, is moved by acts and by a population's rule only, if at least three gaps of "
        "theirs are known; 0 holds nobody",
        "gaps",
        ge=0,
        le=100,
    )
    rest_seconds: Seconds = setting(
        0.0,
        "who was seen less than this ago, customer or not, is moved by acts and by a population's rule "
        "only, whatever is known of their gaps: for a shop that knows what silence means nothing in it; 0 "
        "holds nobody",
    )
    sign_gap_seconds: Seconds = setting(
        1_800.0,
        "acts within this of one whose margin was added are the same sign, and add nothing more",
    )
    provisional_looks: int = setting(
        3, "a first assignment is provisional for this many looks", "looks", ge=0, le=200
    )
    dwell_seconds: Seconds = setting(0.0, "a user stays at least this long in a segment")
    turns_per_second: float = setting(
        200.0,
        "members of a segment that has turned into another kind are told of it at this rate at the "
        "most, in each partition; who acts is told at once",
        "users/s",
        gt=0,
    )
    revert_seconds: Seconds = setting(
        7 * 86_400.0,
        "a user who goes back to the segment before within this time has flapped; such figures "
        "forget half of the past in it, too; moves nobody, 0 counts no one",
    )

    def rule(self) -> PublishRule:
        return PublishRule(
            self.margin,
            self.provisional_looks,
            int(self.dwell_seconds * 1_000),
            int(self.revert_seconds * 1_000),
            int(self.sign_gap_seconds * 1_000),
            self.silence_margin,
            self.turns_per_second,
            self.apart,
            int(self.return_seconds * 1_000),
            self.usual_gaps,
            int(self.rest_seconds * 1_000),
        )


class Publisher(Section):
    deliver_seconds: Seconds = setting(
        4.0,
        "a change not delivered after this is tried afresh; nothing lands on the output later than "
        "three times this after it was taken from the outbox, so owners wait that long after the "
        "store lost something",
        gt=0,
    )
    batch_entries: int = setting(
        20, "outbox entries taken at once from a partition, at the most", "entries", ge=1
    )
    batch_changes: int = setting(
        20_000,
        "about so many changes are taken at once from all partitions, whatever entries they are in",
        "changes",
        ge=1_000,
    )
    lease_seconds: Seconds = setting(
        5.0, "a publisher or trainer that does not renew for this long is replaced", gt=0
    )

    @property
    def settle_seconds(self) -> float:
        """After this, what a publisher had in hand is on the output, or given up.

        It takes `deliver_seconds` at most to hand everything to the client, which gives each record
        up after twice as long again. The second is for clocks that do not agree.
        """
        return 3 * self.deliver_seconds + 1.0


class Webhooks(Section):
    retry_seconds: tuple[Seconds, ...] = setting(
        (5.0, 60.0, 300.0, 1_800.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0),
        "waits after the first attempt at an endpoint, the second, and so on, each longer by up to a "
        "fifth; after the last one the delivery is parked",
        "seconds",
        max_length=32,
    )
    open_after: int = setting(
        5,
        "failures in a row, of a partition's attempts, after which an endpoint is left alone for a while",
        "attempts",
        ge=1,
    )
    open_seconds: Seconds = setting(
        5.0,
        "it is left alone this long, then one attempt finds out; twice as long each time that it fails",
        gt=0,
    )
    most_open_seconds: Seconds = setting(300.0, "and never longer than this", gt=0)
    waiting: int = setting(
        20_000,
        "deliveries of a partition that wait for one endpoint at the most; more are parked",
        "deliveries",
        ge=1,
    )

    def rules(self, partitions: int) -> Rules:
        """What holds in each of so many partitions."""
        return Rules(
            [round(seconds * 1_000) for seconds in self.retry_seconds],
            self.open_after,
            round(self.open_seconds * 1_000),
            round(self.most_open_seconds * 1_000),
            self.waiting,
            1 / partitions,
        )


class Api(Section):
    host: str = setting("127.0.0.1", "address of the API; another than loopback needs api.clients")
    port: int = setting(
        8_080, "port of the API; 0 takes a free one and logs it", "port", ge=0, le=65_535
    )
    clients: tuple[Client, ...] = setting(
        (),
        "who may ask, each with a name, where its token is (env:NAME or file:PATH) and scopes: read, "
        "rename, pause; none: whoever is on this machine may read, and nobody may change anything",
        max_length=100,
    )
    recent_changes: int = setting(
        20_000,
        "of the newest changes so many are kept in memory for the feed; one or two kilobytes each",
        "changes",
        ge=100,
        le=10_000_000,
    )
    readers: int = setting(
        200, "who may follow the feed of changes at a time; one more is refused", "readers", ge=1
    )
    reader_waits: int = setting(
        10_000,
        "changes that wait for one reader of the feed; a reader who is slower is dropped",
        "changes",
        ge=1,
    )

    @model_validator(mode="after")
    def _is_guarded(self) -> Api:
        names = [client.name for client in self.clients]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"api.clients: the name {name!r} is used twice")
        if not self.clients and not is_loopback(self.host):
            raise ValueError(
                f"api.host: {self.host} can be reached from other machines; declare api.clients, or "
                "listen on 127.0.0.1"
            )
        return self


class Metrics(Section):
    host: str = setting("127.0.0.1", "address of /metrics, /live and /ready")
    port: int = setting(0, "port of /metrics; 0 takes a free one and logs it", ge=0, le=65_535)
    linger_seconds: Seconds = setting(
        0.0,
        "a role that ends with an error that needs a person serves /metrics this long before, so that "
        "it is scraped; twice the scrape interval",
        le=300,
    )


class Log(Section):
    format: Literal["auto", "text", "json"] = setting(
        "auto", "lines for people or for machines; auto is json where stderr is no terminal"
    )
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        "what the roles log; other commands log warnings, and with --verbose what is said here",
    )


class Settings(Section):
    broker: Broker = Broker()
    topics: Topics = Topics()
    store: Store = Store()
    clock: Clock = Clock()
    worker: Worker = Worker()
    money: Money = Money()
    reviews: Reviews = Reviews()
    learning: Learning = Learning()
    scoring: Scoring = Scoring()
    publish: Publish = Publish()
    publisher: Publisher = Publisher()
    metrics: Metrics = Metrics()
    log: Log = Log()
    features: tuple[Feature, ...] = Field(default=DEFAULT_FEATURES, min_length=1)
    kinds: tuple[KindRule, ...] = Field(default=DEFAULT_KINDS)
    populations: tuple[Population, ...] = Field(
        default=DEFAULT_POPULATIONS,
        description="who is learned together, the first whose rule holds; none: everyone. By default "
        "customers, lapsed and visitors, if there are features to tell them by",
    )
    scores: tuple[Score, ...] = Field(
        default=DEFAULT_SCORES,
        description="what is foretold of each customer. By default the probability of an order within "
        "30 and 90 days and the expected spend of 90, if there are features to tell it from; and how "
        "unusual somebody is",
    )
    levels: tuple[Level, ...] = Field(
        default=(),
        description="where each shopper stands by steps of a feature or score; crossing a limit is told",
    )
    campaigns: tuple[Campaign, ...] = Field(default=())
    campaign_limits: CampaignLimits = CampaignLimits()
    endpoints: tuple[Endpoint, ...] = Field(
        default=(), description="receivers of the triggers of campaigns"
    )
    webhooks: Webhooks = Webhooks()
    api: Api = Api()

    def table(self) -> FeatureTable:
        """The features, compiled."""
        beside = [layout()] if self.levels else []
        return FeatureTable(self.features, self.worker.shop_events, beside)

    def divided(self) -> Populations:
        """The populations, compiled."""
        return Populations.of(self.populations, [feature.name for feature in self.features])

    def foretold(self) -> Wanted:
        """The scores, and what they are learned from."""
        names = {feature.name for feature in self.features}
        told = self.scoring
        inputs, habits = (
            tuple(name for name in some if name in names) for some in (told.inputs, told.habits)
        )
        absent = {feature.name: feature.absent for feature in self.features}
        return Wanted(
            self.scores, inputs, told.users, told.look_days, told.labels, habits, self.levels,
            absent, over_time(self.features), told.falls,
        )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _with_those_of_reviews(cls, data: Any) -> Any:
        """The features of reviews behind the others, where reviews are read."""
        told = data.get("reviews") if isinstance(data, dict) else None
        try:
            enabled = told is not None and Reviews.model_validate(told).enabled
        except ValidationError:
            return data  # it is told with its key
        features = data.get("features", DEFAULT_FEATURES) if enabled else None
        if not isinstance(features, (list, tuple)):
            return data
        names = {_name_of(feature) for feature in features}
        more = [feature for feature in REVIEW_FEATURES if feature.name not in names]
        return data | {"features": [*features, *more]}

    @model_validator(mode="before")
    @classmethod
    def _can_tell_them(cls, data: Any) -> Any:
        """Leave default populations and scores out where a feature table has not what they look at."""
        if not isinstance(data, dict) or "features" not in data:
            return data
        names = {_name_of(feature) for feature in data["features"]}
        rules = {feature for one in DEFAULT_POPULATIONS for feature in one.when}
        if "populations" not in data and not rules <= names:
            data = data | {"populations": ()}
        if "scores" not in data:
            told = names.issuperset(NEEDED)
            scores = [one for one in DEFAULT_SCORES if told or one.of == "unusual"]
            if not names.intersection(HABITS):
                scores = [one for one in scores if one.of != "unusual"]
            data = data | {"scores": tuple(scores)}
        return data

    @model_validator(mode="after")
    def _topics_are_apart(self) -> Settings:
        topics = self.topics
        uses = [
            (topics.clickstream, "topics.clickstream"),
            (topics.purchases, "topics.purchases"),
            (topics.changes, "topics.changes"),
            (topics.models, "topics.models"),
            (topics.triggers, "topics.triggers"),
            (topics.control, "topics.control"),
            (topics.dlq(topics.clickstream), "the dead letters of topics.clickstream"),
            (topics.dlq(topics.purchases), "the dead letters of topics.purchases"),
            (topics.dlq(topics.triggers), "the parked deliveries of topics.triggers"),
        ]
        known: dict[str, str] = {}
        for name, use in uses:
            if name in known:
                raise ValueError(
                    f"topics: {name!r} is both {known[name]} and {use}; each needs a topic of its own"
                )
            known[name] = use
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Settings:
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"features: the name {name!r} is used twice")
        for rule in self.kinds:
            if rule.instead not in {None, FALLBACK_KIND, *(one.kind for one in self.kinds)}:
                raise ValueError(
                    f"kinds: {rule.kind!r} has {rule.instead!r} instead, which is none"
                )
            for name in rule.when:
                if name in DERIVED and not rhythm.readable(names):
                    raise ValueError(
                        f"kinds: {rule.kind!r} looks at {name!r}, which needs the features "
                        f"{rhythm.ORDERS}, {rhythm.SILENCE} and {rhythm.KNOWN}"
                    )
                if name not in names and name not in DERIVED:
                    raise ValueError(f"kinds: {rule.kind!r} looks at {name!r}, which is no feature")
        check(self.populations, names)
        for feature in self.features:
            for limits in feature.limits:
                for name in limits.keys() - set(names):
                    raise ValueError(
                        f"features: limits of {feature.name!r} look at {name!r}, which is no feature"
                    )
            if feature.name in DERIVED:
                raise ValueError(f"features: the name {feature.name!r} has a meaning in kinds")
        for place, feature in enumerate(self.features):
            for part in feature.ratio_parts:
                if part not in names[:place]:
                    raise ValueError(
                        f"features: {feature.name!r} is a ratio with {part!r}, which is no "
                        "feature declared before it"
                    )
        self._scores_are_known(names)
        check_levels(self.levels, names, {score.name: score.of for score in self.scores})
        see_campaigns(
            self.campaigns,
            (rule.kind for rule in self.kinds),
            names,
            step_names(self.levels),
            (one.name for one in self.populations),
            (score.name for score in self.scores),
        )
        see_endpoints(self.endpoints, (campaign.name for campaign in self.campaigns))
        return self

    def _scores_are_known(self, features: list[str]) -> None:
        names = [score.name for score in self.scores]
        for name in names:
            if names.count(name) > 1 or name in features:
                raise ValueError(f"scores: the name {name!r} is used twice")
        missing = [name for name in NEEDED if name not in features]
        if missing and any(score.days for score in self.scores):
            raise ValueError(f"scores: the feature {missing[0]!r} is needed, and is not declared")
        for section, known in (("inputs", INPUTS), ("habits", HABITS)):
            for name in getattr(self.scoring, section):
                if name not in features and name not in known:
                    raise ValueError(f"scoring.{section}: {name!r} is no feature")
        unusual = [score.name for score in self.scores if score.of == "unusual"]
        if len(unusual) > 1:
            raise ValueError(f"scores: {unusual[1]!r} is unusual, as {unusual[0]!r} is already")
        if unusual and not set(self.scoring.habits) & set(features):
            raise ValueError(f"scores: {unusual[0]!r} needs scoring.habits, of features there are")


def _name_of(feature: Any) -> Any:
    """Of a feature as it is declared, read or not."""
    return feature.get("name") if isinstance(feature, dict) else getattr(feature, "name", None)
