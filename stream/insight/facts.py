"""The facts that insight gives, typed: what a command shows and prints as JSON.

Comes in: nothing; these are types, and what an API would serve is declared by them, too.

They are plain data, so that they can be written as JSON as they are. Times are ISO 8601, values are in
natural units, ``sd`` is the standard deviation of a mapped feature over users. A change is told as it
is on the topic (`stream.events.SegmentChange`), with whatever a later version put there.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Required, TypeAlias

from typing_extensions import TypedDict

from stream.events import Lineage, Profile, SegmentFlapping

Record: TypeAlias = dict[str, Any]
"""A change, or what became of a segment, as it was read from the topic."""


class NamedSegment(TypedDict):
    """A segment, as it is told beside something else."""

    segment: int
    name: str
    kind: str


# -- segments ----------------------------------------------------------------------------------


class Flapping(SegmentFlapping):
    """How often users leave a segment, and how long it was watched."""

    user_days: float


class SegmentScore(TypedDict):
    """What a score comes to in a segment, over the `users` in it who have the score.

    Of a probability the `total` is how many of them are expected to buy. `looks` are those at people of the
    segment whose time ended last: what was `foretold` of one of them, and what `came` of it, the share who
    bought or money; None without any.
    """

    score: str
    unit: str
    users: int
    mean: float
    total: float
    looks: int
    foretold: float | None
    came: float | None


class ScoreFacts(TypedDict):
    """A score as it was learned, and how good its predictions were.

    `base` is the share of customers who bought within its days, lately. `auc`, `log_loss` and
    `calibration` are of the last predictions of an order, each made before it was known what came of it;
    None of too few. So are, of money, `captured`, the share of it that the tenth with the highest
    predictions spent, and `total`, all that was predicted over all that was spent. Unusual is no
    prediction: it has no `days`, and `labels` are the users of the sample it was learned from.
    """

    score: str
    of: str
    days: float | None
    unit: str
    labels: int
    base: float
    auc: float | None
    log_loss: float | None
    calibration: float | None
    captured: float | None
    total: float | None


class SegmentFacts(TypedDict):
    """A segment as of the trainer's last round; `marks` names the features farthest from the average."""

    id: int
    name: str
    kind: str
    population: str
    size: int
    born: str
    flapping: Flapping
    profile: list[Profile]
    marks: list[str]
    scores: list[SegmentScore]


class Condition(TypedDict):
    """A feature's value lies above one number and up to another; None for no limit."""

    feature: str
    above: float | None
    upto: float | None
    unit: str


class Shares(TypedDict):
    """How good a rule is, on users it was not learned from; None where none were left.

    `covers` is the share of the segment's members whom it finds, `purity` the share of members among
    whom it finds.
    """

    covers: float | None
    purity: float | None


class RuleFacts(Shares):
    """Conditions that all hold of a user."""

    conditions: list[Condition]
    users: int


class SegmentRules(NamedSegment, Shares):
    """The rules of a segment; whoever of its population fits one of them is in it."""

    population: str
    overlaps: bool
    rules: list[RuleFacts]


class PopulationRule(TypedDict):
    """Who is in a population; limits are from and up to, both included, and none is everyone else."""

    name: str
    when: dict[str, dict[str, float]]


class RulesFacts(TypedDict):
    """The rules of all segments, and how far they can be trusted."""

    populations: list[PopulationRule]
    fidelity: float | None
    learned_from: int
    judged_on: int
    users: int
    segments: list[SegmentRules]


class PopulationFacts(TypedDict):
    """Users who are learned together; `choice` says how the number of segments came about.

    `when` has the limits of its rule, from and up to, both included. What has no model yet has no
    segments, and nothing is known of it but its users.
    """

    name: str
    when: dict[str, dict[str, float]]
    users: int
    segments: list[int]
    choice: str | None
    inertia: float | None
    silhouette: float | None


class LevelLimit(TypedDict):
    """From which value of a feature or score on somebody is on a step."""

    of: str
    least: float


class LevelStep(TypedDict):
    """A step of a level, the users on it, and its limits in this shop: either leads to it; the last has none."""

    level: str
    step: str
    limits: list[LevelLimit]
    users: int


class SegmentsFacts(TypedDict):
    """All segments, in the order of the model."""

    model: str
    at: str
    users: int
    inertia: float
    silhouette: float | None
    populations: list[PopulationFacts]
    segments: list[SegmentFacts]
    lineage: list[Lineage]
    scores: list[ScoreFacts]
    levels: list[LevelStep]
    rules: NotRequired[RulesFacts]


class ModelFacts(TypedDict):
    """The model in force, without its segments."""

    model: str
    at: str
    round: str
    users: int
    inertia: float
    silhouette: float | None
    features: list[str]
    populations: list[PopulationFacts]
    scores: list[ScoreFacts]


class MemberFacts(TypedDict):
    """A member of a segment; see `members.Member`."""

    user: str
    segment: int
    name: str
    kind: str
    since: str
    kind_since: str
    last_seen: str
    value: float | None


class MembersFacts(TypedDict):
    """Some members; `next` is where to go on, None at the end."""

    members: list[MemberFacts]
    next: str | None


class KindFlow(TypedDict):
    """Users who were told one kind and then another; no kind before for who is new."""

    kind_from: str | None
    kind_to: str
    changes: int
    by_cause: dict[str, int]


class SegmentFlow(TypedDict):
    """Users who came to a segment and left it; of those who came, who came back from churn risk."""

    segment: int
    came: int
    left: int
    came_back: int


class FlowsFacts(TypedDict):
    """Flows between kinds, and to and from segments, within a time.

    `since` is when they begin, and `known_since` when what is remembered does: later, where less is
    remembered than was asked for; None if nothing is.
    """

    within: str
    at: str
    since: str
    known_since: str | None
    changes: int
    came_back: int
    flows: list[KindFlow]
    segments: list[SegmentFlow]


class MapSegment(TypedDict):
    """The centroid of a segment on the map."""

    segment: int
    x: float
    y: float


class MapShopper(TypedDict):
    """A shopper on the map; no segment for who is in none."""

    user: str
    segment: int | None
    x: float
    y: float


class MapAxis(TypedDict):
    """What a direction of the map is: the features that count most in it, with their share."""

    share: float
    features: list[str]


class MapFacts(TypedDict):
    """Shoppers and centroids in the plane in which the centroids lie farthest apart, in sd.

    `shown` is the share of the distances between centroids that is seen in it.
    """

    model: str
    at: str
    shown: float
    axes: list[MapAxis]
    segments: list[MapSegment]
    shoppers: list[MapShopper]


class Attention(TypedDict):
    """Something that a person should look at; `what` is short, `how` is what to do."""

    severity: Literal["warning", "critical"]
    what: str
    how: str


FeedState: TypeAlias = Literal["up", "starting", "down"]


class StandingFacts(TypedDict):
    """Whether a pipeline is well, as far as its store tells; what needs attention comes worst first."""

    at: str
    model: str | None
    round: str | None
    users: int
    partitions: int
    partitions_begun: int
    waiting_entries: int
    feed: FeedState
    latest_change: str | None
    attention: list[Attention]


# -- a user ------------------------------------------------------------------------------------


class Value(TypedDict):
    """What a user has of a feature."""

    feature: str
    value: float
    unit: str


class Membership(TypedDict):
    """The segment a user is in."""

    id: int
    name: str
    kind: str
    since: str
    kind_since: str


class Distance(TypedDict):
    """How far a user is from a centroid, in sd."""

    segment: int
    name: str
    distance: float


class Part(TypedDict):
    """One feature's part in the margin between two segments.

    `own` and `other` are of the typical member of the user's segment, and of the other one.
    `contribution` is the squared distance to the own centroid less that to the other one, in this
    feature; below 0 it holds the user, above 0 it pulls them away.
    """

    feature: str
    unit: str
    value: float
    own: float
    other: float
    contribution: float


class Margin(TypedDict):
    """How far a user is from the border to another segment.

    `difference` is the sum of the parts' contributions, exactly; `z` the same as the publish rule has
    it: 0 on the border, .5 at the other centroid, -.5 at the own one. The largest contribution of
    either sign comes first.
    """

    own: int
    other: int
    difference: float
    z: float
    parts: list[Part]


class Evidence(TypedDict):
    """What a user's acts so far add up to, and towards which segment."""

    segment: int
    z: float


class Proposal(TypedDict):
    """A change in one feature, all others as they are, that is enough for another segment.

    `needed` is the nearest value that is enough, `sd` the change in standard deviations of the mapped
    feature, `how` what brings a change in this direction about.
    """

    feature: str
    unit: str
    value: float
    needed: float
    sd: float
    how: str


# "is" is a keyword, so this part of the type is spelled as a call.
_Relation = TypedDict("_Relation", {"is": str})


class Move(NamedSegment, _Relation):
    """A segment that a user could move to, what it is to them, and what alone would do it.

    They left it so lately that until `acts_only_until` only acts, or a population's rule, take them back; null if not.
    """

    acts_only_until: str | None
    changes: list[Proposal]


class ActedFacts(TypedDict):
    """So many events of one kind; `value` and `quantity` are of each, None where no feature reads it."""

    event: str
    times: int
    value: float | None
    quantity: float | None


class Act(NamedSegment, ActedFacts):
    """The fewest events of one kind, all of them now, that move a user."""

    to: int


class Departure(NamedSegment):
    """A move that silence alone brings about, so many days from now."""

    days: int
    at: str


class ScoreValue(TypedDict):
    """What is foretold of a user."""

    score: str
    value: float
    unit: str


class ScorePart(TypedDict):
    """What a feature adds to the log-odds of an order."""

    feature: str
    value: float
    unit: str
    log_odds: float


class ScoreWhy(ScoreFacts):
    """A user's score and what carries it.

    `log_odds` are of an order within the score's days: `average`, of a customer who is average in
    everything, and all parts add up to them.
    """

    value: float
    log_odds: float
    average: float
    parts: list[ScorePart]


class UnusualPart(TypedDict):
    """What a feature adds to the squared distance; one that goes along with others may take some away.

    `usual` is the value that is usual in the segment.
    """

    feature: str
    value: float
    usual: float
    unit: str
    squared: float


class UnusualWhy(NamedSegment):
    """How far a user is from the people of the segment who are most like them.

    `value` is the share of all users who are less far, `distance` is in spreads of what people there do;
    its square is what all parts come to.
    """

    value: float
    distance: float
    parts: list[UnusualPart]


class LevelFacts(TypedDict):
    """The step of a level that a user was told last, None for none, and what its steps look at as of now."""

    level: str
    step: str | None
    looks_at: dict[str, float | None]


class LevelTurn(TypedDict):
    """A step that silence alone takes a user to, so many days from now; None for none any more."""

    days: int
    at: str
    step: str | None


class LevelAct(ActedFacts):
    """The fewest events of one kind, all of them now, that take a user to another step."""

    step: str | None


class LevelWhy(LevelFacts):
    """Where a user stands, and what would take them to another step."""

    silence: list[LevelTurn]
    acts: list[LevelAct]


class WhyFacts(TypedDict):
    """What holds a user, and what would move them.

    There is no margin where their population has no other segment. Until `rests_until` their silence is usual for
    them: only acts and a population's rule move them. It is null for who does not rest.
    """

    population: PopulationRule
    margin: Margin | None
    margin_needed: float
    silence_margin_needed: float
    rests_until: str | None
    evidence: Evidence | None
    moves: list[Move]
    acts: list[Act]
    silence: list[Departure]
    scores: list[ScoreWhy]
    unusual: UnusualWhy | None
    levels: list[LevelWhy]


class PlacedFacts(TypedDict, total=False):
    """Where the newest model sees a user; nothing as long as there is none."""

    segment: Required[Membership | None]
    model: str
    distances: list[Distance]
    scores: list[ScoreValue]
    levels: list[LevelFacts]


class UserFacts(PlacedFacts):
    """A user as of now; `model`, `distances`, `scores` and `levels` only once there is a model.

    Nothing is foretold of who has not ordered, nor of anybody as long as too little was seen.
    """

    user: str
    partition: int
    at: str
    first_seen: str | None
    last_seen: str | None
    features: list[Value]
    version: int
    changes: list[Record]
    why: NotRequired[WhyFacts | None]


# -- how many segments -------------------------------------------------------------------------


class Stability(TypedDict):
    """Agreement of segments when users are drawn again."""

    mean: float
    low: float
    high: float


class Curves(TypedDict):
    """Measures by number of segments, as text."""

    inertia: dict[str, float]
    silhouette: dict[str, float]
    separation: dict[str, float]
    stability: dict[str, Stability]


class StudiedSegment(TypedDict):
    """A segment that a study shows; `share` is of the users looked at."""

    id: int
    name: str
    kind: str
    size: int
    share: float
    profile: list[Profile]


class StudiedPopulation(TypedDict):
    """How many segments a population has by the settings, and how many its users suggest.

    `configured` is None where that is left to the users; nothing is suggested by a handful.
    """

    name: str
    users: int
    configured: int | None
    suggested: int | None
    firmness: str | None


class StudyFacts(TypedDict):
    """How many segments the users of a population suggest, and what they are.

    `written` has the path of each picture and of the page, by name.
    """

    source: str
    at: str
    users: int
    sampled: int
    population: str
    populations: list[StudiedPopulation]
    notes: list[str]
    distance: str
    algorithm: str
    proposal: int
    suggested: int
    firmness: str
    curves: Curves
    elbow: int
    model: str | None
    stability: float | None
    noise: int
    segments: list[StudiedSegment]
    written: dict[str, str]


# -- other settings ----------------------------------------------------------------------------


class PlannedSegment(TypedDict):
    """A segment and its users, before or after; `new` of those after that were not there before."""

    id: int
    name: str
    kind: str
    users: int
    new: NotRequired[bool]


# "from" is a keyword, so the type is spelled as a call.
Flow = TypedDict("Flow", {"from": int, "to": int, "users": int})
"""Users who are in one segment before and in another, or the same, after."""


class BeforeAndAfter(TypedDict):
    before: int
    after: int


class ChurnRisk(BeforeAndAfter):
    """Users in kinds that stand for churn risk."""

    entering: int
    leaving: int


class PlanFacts(TypedDict):
    """What other settings would do; numbers of users are of all, estimated from a sample."""

    source: str
    at: str
    users: int
    sampled: int
    model: str
    before: list[PlannedSegment]
    after: list[PlannedSegment]
    matrix: list[Flow]
    moving: int
    share: float
    records: int
    causes: dict[str, int]
    due_anyway: int
    lineage: list[Lineage]
    kinds: dict[str, BeforeAndAfter]
    churn_risk: ChurnRisk
    notes: list[str]
    verdict: str


class AppliedFacts(TypedDict):
    """A plan, and what came of it; `lineage` is None where the topic of models has it."""

    plan: PlanFacts
    tuning: str
    in_force: bool
    model: str | None
    lineage: list[Lineage] | None


# -- campaigns ---------------------------------------------------------------------------------


class CampaignFacts(TypedDict):
    """A campaign as it was understood: what its declaration says, and what is seldom meant."""

    name: str
    version: str
    declared: dict[str, Any]
    notes: list[str]


class CheckFacts(TypedDict):
    """The campaigns of a settings file."""

    campaigns: list[CampaignFacts]


class DecisionExample(TypedDict):
    """A change, and what would have been decided; the arm is None where it was not looked at.

    A crossing of a level has a level and steps, and no kinds.
    """

    user: str
    change: str
    changed_at: str
    decided_at: str
    arm: str | None
    kind_from: str | None
    kind_to: str | None
    level: str | None
    step_from: str | None
    step_to: str | None
    cause: str


class TrialCampaign(TypedDict):
    """What would have become of changes for a campaign.

    `looked_at` is the sum of `outcomes`; settling and waiting are what was still under way at the end.
    """

    name: str
    version: str
    looked_at: int
    outcomes: dict[str, int]
    sent_by_arm: dict[str, int]
    examples: dict[str, list[DecisionExample]]


class TrialFacts(TypedDict):
    """Campaigns tried on changes that have happened."""

    source: str
    changes: int
    users: int
    until: str | None
    campaigns: list[TrialCampaign]
    notes: list[str]


class DifferenceFacts(TypedDict):
    """Treated minus held out; each interval is its low and high end, None while there are too few users.

    The sequence holds at all looks together, the plain interval at one that was fixed before.
    """

    treated: float
    held_out: float
    difference: float
    sequence: list[float] | None
    plain: list[float] | None


class ComparisonFacts(TypedDict):
    """One arm against the holdout; `missing` users are needed until an effect as hoped for is seen."""

    arm: str
    users: int
    held_out_users: int
    verdict: str
    missing: int | None
    conversion: DifferenceFacts
    revenue: DifferenceFacts
    active: DifferenceFacts


class ArmFacts(TypedDict):
    """Users of an arm whose window is over, what came of them, and how many windows are open."""

    arm: str
    users: int
    converted: int
    active: int
    revenue: float
    still_open: int


class EffectFacts(TypedDict):
    """What is known of a version of a campaign; `declared` is the one in force."""

    version: str
    declared: bool
    within_seconds: float
    hope: float
    arms: list[ArmFacts]
    comparisons: list[ComparisonFacts]
    as_declared: bool
    ratio_evidence: float


class CampaignState(TypedDict):
    """What a campaign has decided so far, and its effect; the version is None if it is declared no more."""

    name: str
    version: str | None
    paused: bool
    looked_at: int
    outcomes: dict[str, int]
    effects: list[EffectFacts]


class CampaignsFacts(TypedDict):
    campaigns: list[CampaignState]


class ControlFacts(TypedDict):
    """What was said of a campaign or a user, and on how many partitions it stands."""

    record: dict[str, Any]
    partitions: int


# -- a run of the pipeline ---------------------------------------------------------------------


class MomentFacts(TypedDict):
    """A pipeline at work; `behind_seconds` are of the shop's clock."""

    shop_time: str
    events: int
    events_per_second: float
    behind_seconds: float
    changes: int
    churn_risk_moves: int
    last_moves: list[Record]
    segment_list: SegmentsFacts | None


class EffectBesideTruth(TypedDict):
    """What was measured of a campaign's conversion, and what is true, where the shop knows who reacted."""

    campaign: str
    arm: str
    users: int
    held_out_users: int
    verdict: str
    measured: float
    sequence: list[float] | None
    true: float | None


class RunFacts(TypedDict):
    """What a run came to; latencies are from when a mark was sent to when its changes arrived.

    `checks` are an audit's. `complete` is whether the shop sent all it had, `caught_up` whether the roles
    had come to the end of it when nobody waited longer; a run is `ok` if the audit was, and if they had.
    """

    ok: bool
    seconds: float
    events: int
    events_per_second: float
    users: int
    segments: int
    changes: int
    changes_by_cause: dict[str, int]
    churn_risk_moves: int
    change_latency_p50_seconds: float | None
    change_latency_p99_seconds: float | None
    lost: int
    duplicated: int
    rejected: int
    complete: bool
    caught_up: bool
    checks: list[dict[str, Any]]
    effects: NotRequired[list[EffectBesideTruth]]
    segment_list: NotRequired[SegmentsFacts]
