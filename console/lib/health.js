// What the figures of GET /v1/status mean: whether all is well, and if not what is wrong, what it does and since when.

import { counted } from "./time.js";

/** @typedef {{level: "warn" | "bad", what: string, effect: string, since: number | null}} Trouble */
/** @typedef {Record<string, any>} Status the message `ServiceStatus` */

/** A report that is older is late, as the contract says. */
const LATE_MS = 15_000;
/** Ended sessions are stored within seconds: a longer wait is worth a look. */
const UNSTORED_MS = 120_000;

/** Degradations of the contract: level, what is wrong, and what it does to people. */
const DEGRADATIONS = {
  database: ["bad", "Postgres does not answer.", "Sessions that store something cannot begin. Running ones continue, and are written when it is back."],
  disk: ["bad", "The disk of the spool is full or fails.", "Streams that are stored are held back, and end if it lasts. Free space on it."],
  audio_lost: ["bad", "Audio of a running session can no longer be read.", "That session is incomplete. Others are not affected."],
  lease: ["bad", "A lease has expired.", "The process writes nothing until the lease is renewed, and others take over its work."],
  models: ["bad", "The models of a worker do not run.", "Its jobs wait. The worker's log has the reason."],
  object_store: ["bad", "S3 does not answer.", "Audio and transcripts wait in the spool. Nothing is lost while it has room."],
  behind: ["warn", "The queue delay is over its limit.", "New sessions are refused and workers wait until it falls. Text of running sessions is late."],
  at_capacity: ["warn", "All places are taken.", "New sessions are refused. Running ones are not affected."],
  text_late: ["warn", "A session has waited ten seconds or longer for its text.", "Its audio is safe; the text follows."],
  partials_suppressed: ["warn", "At least half of the partials are left out.", "Interim text is sparse. Finals are not affected."],
  capacity: ["warn", "Batch jobs wait because live sessions need the machine.", "They continue by themselves when it is free."],
};

/** @param {string | undefined} time */
const ms = (time) => (time ? Date.parse(time) : null);

/** `a`, `a and b`, `a and 3 more`.
 * @param {string[]} names */
export const several = (names) =>
  names.length < 3 ? names.join(" and ") : `${names[0]} and ${names.length - 1} more`;

/** What a name of a degradation says, as a sentence.
 * @param {string} name */
export const degradationText = (name) => DEGRADATIONS[name]?.[1] ?? `${name}.`;

/** @param {string} name @returns {"warn" | "bad"} */
export const degradationLevel = (name) => DEGRADATIONS[name]?.[0] ?? "warn";

/** How many milliseconds a process has not reported for, up to the answer.
 * @param {Status} status @param {Record<string, any>} each */
export const silence = (status, each) => Math.max(0, (ms(status.checked_at) ?? 0) - (ms(each.reported_at) ?? ms(each.started_at) ?? 0));

/** Whether the last report of a process is late.
 * @param {Status} status @param {Record<string, any>} each */
export const isLate = (status, each) => silence(status, each) > LATE_MS;

/** @param {Status} status @returns {Trouble[]} */
function ofDegradations(status) {
  /** @type {Map<string, {on: string[], since: number | null}>} */
  const found = new Map();
  for (const each of status.processes ?? []) {
    for (const { name, since } of each.degradations ?? []) {
      const known = found.get(name) ?? { on: [], since: null };
      known.on.push(each.id);
      known.since = earliest(known.since, ms(since));
      found.set(name, known);
    }
  }
  return [...found].map(([name, { on, since }]) => {
    const [level, what, effect] = DEGRADATIONS[name] ?? ["warn", `A process reports “${name}”.`, ""];
    return { level, what, effect: `${effect} Reported by ${several(on)}.`.trim(), since };
  });
}

/** @param {Status} status @returns {Trouble[]} */
function ofProcesses(status) {
  if (status.view === "tenant") return [];
  const all = status.processes ?? [];
  /** @type {Trouble[]} */
  const troubles = [];
  for (const each of all) {
    const since = ms(each.reported_at) ?? ms(each.started_at);
    if (!each.lease_valid) {
      const takes = each.kind === "worker" ? "jobs" : "sessions";
      troubles.push({ level: "bad", what: `The ${each.kind} ${each.id} has no valid lease.`, effect: `It is dead, or cannot reach Postgres. Others take over its ${takes}.`, since });
    } else if (isLate(status, each)) {
      troubles.push({ level: "bad", what: `The ${each.kind} ${each.id} does not report.`, effect: "It hangs, is dead, or cannot reach Postgres. Its figures are old.", since });
    }
  }
  const servers = all.filter((each) => each.kind === "server" && each.lease_valid);
  if (!servers.some((each) => each.state === "ready")) {
    const isStarting = servers.some((each) => each.state === "starting");
    troubles.push({ level: "bad", what: "No server takes new sessions.", effect: isStarting ? "One is starting." : "Those that run are being ended or do not report.", since: null });
  }
  const isQueued = (status.totals?.queued_jobs ?? 0) > 0;
  if (isQueued && !all.some((each) => each.kind === "worker" && each.lease_valid)) {
    troubles.push({ level: "warn", what: `No worker is running, and ${counted(status.totals.queued_jobs, "job")} wait${status.totals.queued_jobs === 1 ? "s" : ""}.`, effect: "Live sessions are not affected. Start a worker.", since: ms(status.totals.oldest_queued_at) });
  }
  return troubles;
}

/** @param {Status} status @returns {Trouble[]} */
function ofTotals(status) {
  const totals = status.totals;
  if (!totals) {
    const isSaid = (status.processes ?? []).some((each) => (each.degradations ?? []).some((one) => one.name === "database"));
    return isSaid ? [] : [{ level: "bad", what: DEGRADATIONS.database[1], effect: DEGRADATIONS.database[2], since: null }];
  }
  /** @type {Trouble[]} */
  const troubles = [];
  if (totals.sessions_to_recover > 0) {
    troubles.push({ level: "warn", what: `${counted(totals.sessions_to_recover, "session")} of a process that died ${totals.sessions_to_recover === 1 ? "waits" : "wait"} for recovery.`, effect: "Another server finishes them within half a minute, or its own when it is back.", since: null });
  }
  const oldest = ms(totals.oldest_unstored_at);
  if (oldest !== null && (ms(status.checked_at) ?? 0) - oldest > UNSTORED_MS) {
    troubles.push({ level: "warn", what: `${counted(totals.unstored_sessions, "ended session")} ${totals.unstored_sessions === 1 ? "is" : "are"} not stored yet.`, effect: "Their audio is in the spools of the servers.", since: oldest });
  }
  return troubles;
}

/**
 * Everything that is wrong: the worst first, and of these what lasts longest.
 * @param {Status} status
 * @returns {Trouble[]}
 */
export function troubles(status) {
  const rank = { bad: 0, warn: 1 };
  const all = [...ofTotals(status), ...ofDegradations(status), ...ofProcesses(status)];
  return all.sort((a, b) => rank[a.level] - rank[b.level] || (a.since ?? Infinity) - (b.since ?? Infinity));
}

/** @param {number | null} a @param {number | null} b */
const earliest = (a, b) => (a === null ? b : b === null ? a : Math.min(a, b));

/** The largest of what is set, or null.
 * @param {(number | undefined | null)[]} values */
export function largest(values) {
  const known = values.filter((each) => typeof each === "number");
  return known.length ? Math.max(...known) : null;
}

/** The sum of a figure over servers.
 * @param {Record<string, any>[]} figures @param {(each: any) => number | undefined} read */
export const sum = (figures, read) => figures.reduce((all, each) => all + Number(read(each) ?? 0), 0);

/**
 * The figures of all processes with a valid lease together: the worst of latencies, the sum of counts.
 * @param {Status} status
 */
export function figures(status) {
  const alive = (status.processes ?? []).filter((each) => each.lease_valid);
  const servers = alive.map((each) => each.server).filter(Boolean);
  const workers = alive.map((each) => each.worker).filter(Boolean);
  const totals = status.totals ?? null;
  const isTenant = status.view === "tenant";
  return {
    streams: isTenant ? (totals?.active_sessions ?? null) : servers.length ? sum(servers, (each) => each.sessions) : null,
    places: isTenant ? null : sum(servers, (each) => each.max_sessions),
    queueDelay: largest(servers.map((each) => each.queue_delay_seconds)),
    maxQueueDelay: largest(servers.map((each) => each.max_queue_delay_seconds)),
    longestWait: largest(servers.map((each) => each.longest_wait_seconds)),
    finals: largest(servers.map((each) => each.finals?.p95_seconds)),
    finalsCount: sum(servers, (each) => each.finals?.count),
    partials: largest(servers.map((each) => each.partials?.p95_seconds)),
    partialsCount: sum(servers, (each) => each.partials?.count),
    suppressed: largest(servers.map((each) => each.suppressed_partials)),
    runningJobs: totals?.running_jobs ?? null,
    queuedJobs: totals?.queued_jobs ?? null,
    jobPlaces: sum(workers, (each) => each.max_jobs),
    oldestQueued: ms(totals?.oldest_queued_at),
    unstored: totals?.unstored_sessions ?? null,
    oldestUnstored: ms(totals?.oldest_unstored_at),
    spool: sum(servers, (each) => each.storage?.spool_bytes),
    maxSpool: sum(servers, (each) => each.storage?.max_spool_bytes),
    servers: alive.filter((each) => each.kind === "server").length,
    workers: alive.filter((each) => each.kind === "worker").length,
  };
}
