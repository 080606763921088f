// Shows /status and /policies, again every few seconds. All that comes from there is put in as text.
"use strict";

const EVERY = 3000;
const MOST = 200;
// What was lost before is no trouble of now.
const LATELY = 60_000;
// What an operator can do, by reason.
const ADVICE = {
  INVALID_REQUEST: "The gateway sends what the policy does not take: see the error.",
  PAYLOAD_TOO_LARGE: "Lambda takes 6 MB, and 1 MB asynchronously: send less, or a reference.",
  CALLER_UNAUTHENTICATED: "The gateway presents no known certificate or token: see `callers` in the configuration, and above whether an issuer's keys cannot be fetched.",
  CALLER_DENIED: "This caller may not call the policy: allow it under `callers`, or find out who it is in the log.",
  POLICY_NOT_FOUND: "The gateway names a policy that is not configured: compare the names.",
  FUNCTION_NOT_FOUND: "The function, version or alias does not exist in the region: check `function` and `region`.",
  FUNCTION_ACCESS_DENIED: "Allow lambda:InvokeFunction to the policy's credentials, on the function or its alias.",
  FUNCTION_THROTTLED: "Raise the function's reserved concurrency or the account's limit, or call less.",
  FUNCTION_NOT_READY: "The function is being deployed or woken up: it passes, or its state in Lambda says why not.",
  FUNCTION_MISCONFIGURED: "The function cannot run as it is set up: its state in Lambda says why.",
  CREDENTIALS_UNAVAILABLE: "STS or the source of credentials does not answer: check the way there.",
  CREDENTIALS_REJECTED: "As the error says: renew the keys, check the role and its trust policy, or set the clock of this machine.",
  LAMBDA_UNREACHABLE: "Check the endpoint, DNS, routes, security groups and the proxy between here and Lambda.",
  LAMBDA_FAILED: "Lambda failed or broke off: if it lasts, see the AWS health dashboard and the endpoint's proxies.",
  TIMEOUT: "The function is slower than the policy's `timeout` or the caller's deadline, as the error says: see its duration in CloudWatch. Or the request came too slowly.",
  OVERLOADED: "More calls at once than `max_in_flight` or the policy's share of it allows, or more bytes than `max_mib_in_flight`, as the error says: raise it, add replicas, or make the function faster.",
  BREAKER_OPEN: "The function is left alone after failures in a row: the other errors say why, and the log's line `a breaker opens`.",
  SHUTTING_DOWN: "This replica stops: gateways should use another one.",
  handled: "The function reported an error of its own: see its log in CloudWatch.",
  unhandled: "The function threw, ran out of time or memory: see its log in CloudWatch.",
  given_up: "Callers leave while the function runs: it hangs or is slower than they wait, or their patience (Envoy's `message_timeout`, a proxy's read timeout) is shorter than `timeout`.",
  malformed: "The function's output is not what the policy's event format requires: see the error.",
};
const SVG = "http://www.w3.org/2000/svg";
const by = (id) => document.getElementById(id);

function el(tag, kind, ...children) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  // A string becomes text, whatever is in it.
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Numbers as people read them.

function rate(value) {
  if (!value) return "0";
  if (value < 0.01) return "<0.01";
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });
}

const whole = (value) => value.toLocaleString("en");

function share(calls, part = calls.errors_per_second) {
  if (!calls.per_second) return "–";
  const percent = (100 * part) / calls.per_second;
  if (percent === 0) return "0 %";
  return percent < 0.1 ? "<0.1 %" : `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

// Calls that nobody waited for while Lambda was asked are no errors, but no good sign either.
function givenUp(calls) {
  const part = calls.given_up_per_second;
  return part ? el("small", "warn", ` ${share(calls, part)} given up`) : null;
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  // A number stays with its unit.
  if (value < 0.001) return "<1\u00a0ms";
  if (value < 1) return `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)}\u00a0ms`;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)}\u00a0s`;
}

function span(value) {
  const [day, hour] = [86400, 3600];
  if (value < 90) return `${Math.max(0, Math.round(value))} s`;
  if (value < 90 * 60) return `${Math.round(value / 60)} min`;
  return value < 2 * day ? `${Math.round(value / hour)} h` : `${Math.round(value / day)} d`;
}

function bytes(value) {
  return value < 1048576 ? `${Math.round(value / 1024)} KiB` : `${Math.round(value / 1048576)} MiB`;
}

// Sparklines: one step for each interval, the one that runs at the right.

function columns(values, most, points) {
  let path = "";
  values.forEach((value, at) => {
    if (value > 0) {
      const height = Math.max(1, (19 * value) / most).toFixed(2);
      path += `M${points - values.length + at} 20v-${height}h1v${height}z`;
    }
  });
  return path;
}

function line(values, most, points) {
  let path = "";
  const known = (at) => at >= 0 && at < values.length && values[at] !== null;
  values.forEach((value, at) => {
    if (!known(at)) return;
    const [x, y] = [points - values.length + at, (19 - (17 * value) / most).toFixed(2)];
    if (known(at - 1)) path += `L${x + 0.5} ${y}`;
    else path += known(at + 1) ? `M${x + 0.5} ${y}` : `M${x} ${y}h1`;
  });
  return path;
}

function spark(label, points, ...paths) {
  const base = drawn("path", { class: "base", d: `M0 20h${points}` });
  const made = paths.filter(([, path]) => path).map(([kind, path]) => drawn("path", { class: kind, d: path }));
  const box = { class: "spark", viewBox: `0 0 ${points} 20`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  return drawn("svg", box, drawn("title", {}, label), base, ...made);
}

function callsSpark(history, points = 61) {
  const most = Math.max(1, ...history.calls);
  const label = `at most ${rate(most / history.interval_seconds)} calls a second in the last ten minutes`;
  return spark(label, points, ["calls", columns(history.calls, most, points)], ["errors", columns(history.errors, most, points)]);
}

function slowSpark(history, points = 61) {
  const most = Math.max(...history.p99.map((value) => value ?? 0));
  return spark(`p99 of at most ${seconds(most)} in the last ten minutes`, points, ["line", line(history.p99, most || 1, points)]);
}

// The service.

function pairs(list, facts) {
  list.replaceChildren(...facts.map(([name, ...value]) => el("div", "", el("dt", "", name), el("dd", "", ...value))));
}

function meter(value, limit) {
  const width = limit > 0 ? Math.min(100, (100 * value) / limit) : 0;
  // One policy gets three quarters at the most.
  const box = { class: width > 70 ? "meter bad" : "meter", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" };
  return drawn("svg", box, drawn("rect", { width: width.toFixed(1), height: 4 }));
}

function notice(bad, text, more) {
  return el("div", bad ? "notice bad" : "notice", text, more ? el("pre", "mono", more) : null);
}

let now = Date.now();
const past = (at) => span((now - Date.parse(at)) / 1000);
const ago = (at) => `${past(at)} ago`;

function showStatus(status) {
  now = Date.parse(status.now);
  const { configuration, calls, clients, hosts } = status;
  by("ready").textContent = status.ready ? "ready" : "not ready";
  by("ready").className = status.ready ? "chip good" : "chip bad";
  document.title = `${status.ready ? "" : "not ready: "}lambda-policy`;
  pairs(by("facts"), [
    ["version", status.version],
    ["up", span(status.uptime_seconds)],
    ["policies", whole(configuration.policies)],
    ...(status.telemetry.log_level ? [["log level", status.telemetry.log_level]] : []),
    ["configuration", `no. ${configuration.generation}`],
    ...(configuration.last_reload?.accepted ? [["reloaded", ago(configuration.last_reload.at)]] : []),
  ]);

  const notices = [];
  const reload = configuration.last_reload;
  if (!status.ready) notices.push(notice(true, `Not ready: ${status.readiness}.`));
  if (reload && !reload.accepted) {
    const which = `A changed configuration was refused ${ago(reload.at)}. Number ${configuration.generation} stays in force until this is right:`;
    notices.push(notice(true, which, reload.error));
  }
  if (reload?.needs_restart.length) {
    notices.push(notice(false, `Changed, and in force only after a restart: ${reload.needs_restart.join(", ")}.`));
  }
  for (const { role, trouble } of status.certificates.filter((certificate) => certificate.trouble)) {
    const whose = role === "server" ? "The certificate of the service" : "A certificate of the authorities of callers";
    notices.push(notice(!trouble.startsWith("expires"), `${whose} ${trouble}.`));
  }
  const own = status.own_credentials?.failure;
  if (own) notices.push(notice(true, credentialsTrouble("The service's own credentials", own), own.detail));
  for (const { caller, url, known, failing } of status.issuers) {
    if (!failing) continue;
    const so = known ? "The last ones are used for a day" : `No token of ${caller} is believed`;
    notices.push(notice(!known, `The keys for tokens of ${caller} could not be fetched from ${url} for ${past(failing.since)}. ${so}.`, failing.error));
  }
  const otlp = status.telemetry.otlp;
  for (const signal of ["metrics", "traces"]) {
    const failing = otlp?.[signal]?.failing;
    if (failing) notices.push(notice(false, `The last push of ${signal} to ${otlp.endpoint} failed, as have all for ${past(failing.since)}.`, failing.error));
  }
  for (const [what, why] of [["lines", "Log lines are lost, as nobody reads standard error in time, or it cannot be written"], ["spans", "Spans are lost, as there are more than can be pushed, or the collector does not take them"]]) {
    const dropped = status.telemetry.dropped[what];
    if (dropped?.last && now - Date.parse(dropped.last) < LATELY) notices.push(notice(true, `${why}: ${whole(dropped.count)} by now, the last one ${ago(dropped.last)}.`));
  }
  for (const [what, { count, last }] of [["Calls of methods that there are not", status.astray.grpc], ["Requests of plain HTTP for paths at which nothing is served", status.astray.http]]) {
    if (last && now - Date.parse(last) < LATELY) notices.push(notice(false, `${what}: ${whole(count)} by now, the last one ${ago(last)}. The log has one a minute, with its path and where it comes from.`));
  }
  replace(by("notices"), notices);

  const callers = status.connections;
  const refused = Object.values(callers.refused).reduce((sum, count) => sum + count, 0);
  const failed = hosts.reduce((sum, host) => sum + host.failed, 0);
  pairs(by("tiles"), [
    ["Calls/s", rate(calls.per_second), callsSpark(calls.history)],
    ["Errors", share(calls), el("small", "", ` ${rate(calls.errors_per_second)}/s`), givenUp(calls)],
    ["p50 / p99", seconds(calls.seconds.p50), el("small", "", " / "), seconds(calls.seconds.p99)],
    ["In flight", whole(status.in_flight), el("small", "", ` of ${whole(status.in_flight_limit)}`), meter(status.in_flight, status.in_flight_limit)],
    ["Waiting for a place", whole(status.waiting)],
    ["Bodies held", bytes(status.bodies_bytes), el("small", "", ` of ${bytes(status.bodies_bytes_limit)}`), meter(status.bodies_bytes, status.bodies_bytes_limit)],
    ["Callers' connections", whole(callers.open), el("small", "", ` of ${whole(callers.limit)}, ${whole(refused)} refused`), meter(callers.open, callers.limit)],
    ["Clients", whole(clients.live), el("small", "", ` ${whole(clients.built)} built, ${whole(clients.evicted)} dropped`)],
    ["Connections failed", whole(failed), el("small", "", ` of ${whole(hosts.reduce((sum, host) => sum + host.opened + host.failed, 0))}`)],
  ]);

  by("hosts-section").hidden = hosts.length === 0;
  by("hosts").tBodies[0].replaceChildren(...hosts.map((host) => el("tr", "",
    el("td", "mono", host.host),
    el("td", "number", whole(host.opened)),
    el("td", host.failed ? "number bad" : "number", whole(host.failed)),
    el("td", "number", whole(host.reused)))));
}

// A live region is told again only of what is new.
function replace(region, children) {
  const text = (nodes) => [...nodes].map((node) => node.textContent.replace(/\d+ (s|min|h|d) ago/, "")).join("\n");
  if (text(children) !== text(region.children)) region.replaceChildren(...children);
}

function credentialsTrouble(whose, failure) {
  const what = failure.rejected ? "AWS refuses to give credentials" : "credentials cannot be had";
  return `${whose}: ${what}, ${failure.failures} times in a row, last ${ago(failure.at)}.`;
}

// The policies: one body of the table for each, kept as long as it is shown.

const CHIPS = { ok: "good", errors: "warn", "given up": "bad", failing: "bad", "breaker open": "bad" };
const NAMES = { inline: "policies that calls bring", _unknown: "calls whose policy is not configured" };
const bodies = new Map();
const opened = new Set();

function cell(kind, label, ...children) {
  const made = el("td", kind, ...children);
  made.setAttribute("role", "cell");
  if (label) made.dataset.label = label;
  return made;
}

function makeBody(name) {
  const body = el("tbody");
  const button = el("button", "open", name);
  const main = el("tr", "main");
  const more = el("tr", "more");
  const detail = cell("", "");
  body.setAttribute("role", "rowgroup");
  main.setAttribute("role", "row");
  more.setAttribute("role", "row");
  detail.colSpan = 13;
  more.append(detail);
  more.hidden = !opened.has(name);
  button.type = "button";
  button.setAttribute("aria-expanded", String(opened.has(name)));
  const where = el("small", "few");
  const first = cell("name", "", button, where);
  main.append(first);
  body.append(main, more);
  const made = { body, main, more, detail, first, where, policy: null };
  button.addEventListener("click", () => {
    const open = !opened.has(name);
    opened[open ? "add" : "delete"](name);
    button.setAttribute("aria-expanded", String(open));
    more.hidden = !open;
    if (open) detail.replaceChildren(details(made.policy));
  });
  return made;
}

function credentials(policy) {
  const found = policy.credentials;
  if (!found) return ["–"];
  const parts = [found.role ? "role" : found.kind];
  if (found.failure) {
    parts.push(" ", el("span", "chip bad", found.failure.rejected ? "refused" : "not to be had"));
  }
  if (found.expire_in_seconds !== undefined) {
    const left = found.expire_in_seconds;
    parts.push(el("small", left < 300 ? "bad" : "", ` ${span(left)} left`));
  }
  return parts;
}

function lastError(failures) {
  // What callers do wrong is not what is wrong with the policy.
  const [failure, ...others] = failures.toSorted((one, other) => one.callers_own - other.callers_own);
  if (!failure) return [];
  const cause = failure.reason === "BREAKER_OPEN" && others.find((other) => other.opens_breakers);
  return [
    el("span", "mono", failure.reason),
    cause ? el("span", "", " after ", el("span", "mono", cause.reason)) : null,
    failure.error_type ? el("span", "mono", ` ${failure.error_type}`) : null,
    el("small", "", ` ${ago(failure.at)}`),
    failure.reason === "malformed" ? el("small", "few", failure.error) : null,
    failure.request_id ? el("small", "few mono", failure.request_id) : null,
  ].filter(Boolean);
}

function showPolicy(row, policy) {
  row.policy = policy;
  const { calls } = policy;
  const [failure] = calls.last_errors;
  const qualified = policy.qualifier ? `${policy.function}:${policy.qualifier}` : policy.function;
  const what = policy.function ? `${qualified} ${policy.region}` : NAMES[policy.name];
  row.where.replaceChildren(el("bdi", "", policy.title || ""), policy.title ? " · " : "", what);
  const bad = calls.errors_per_second > 0;
  const { p50, p90, p99 } = calls.seconds;
  const breaker = policy.breaker ? el("span", policy.breaker === "closed" ? "" : "chip bad", policy.breaker) : "–";
  const waits = policy.waiting ? el("small", "warn", ` +${whole(policy.waiting)} wait`) : null;
  const flying = policy.in_flight === undefined ? ["–"] : [whole(policy.in_flight), policy.max_in_flight ? el("small", "", `/${whole(policy.max_in_flight)}`) : null, waits];
  const none = (value) => (value === null || value === undefined ? " none" : "");
  row.main.replaceChildren(
    row.first,
    cell("plain", "State", el("span", `chip ${CHIPS[policy.condition] ?? ""}`, policy.condition)),
    cell("number", "Calls/s", rate(calls.per_second)),
    cell("wide", "Calls and errors, 10 min", callsSpark(calls.history)),
    cell(bad ? "number bad" : "number", "Errors", share(calls), givenUp(calls)),
    cell(`number${none(p50)}`, "p50", seconds(p50)),
    cell(`number${none(p90)}`, "p90", seconds(p90)),
    cell(`number${none(p99)}`, "p99", seconds(p99)),
    cell(`wide${none(p99)}`, "p99, 10 min", slowSpark(calls.history)),
    cell(`number${none(policy.in_flight)}`, "In flight", ...flying.filter(Boolean)),
    cell(`plain${none(policy.breaker)}`, "Breaker", breaker),
    cell(`plain${none(policy.credentials)}`, "Credentials", ...credentials(policy)),
    cell(failure ? "error" : "error none", "Last error", ...lastError(calls.last_errors)),
  );
  if (opened.has(policy.name)) row.detail.replaceChildren(details(policy));
}

function details(policy) {
  const { calls } = policy;
  const facts = [
    ["title", policy.title],
    ["function", policy.function],
    ["qualifier", policy.qualifier],
    ["region", policy.region],
    ["invocation", policy.invocation],
    ["timeout", policy.timeout_seconds && `${policy.timeout_seconds} s`],
    ["endpoint", policy.endpoint],
    ["credentials", policy.credentials?.kind],
    ["role", policy.credentials?.role],
    ["calls", whole(calls.total)],
    ...Object.entries(calls.by_outcome).filter(([, count]) => count).map(([name, count]) => [`  ${name}`, whole(count)]),
    ...Object.entries(calls.by_reason).map(([name, count]) => [`  ${name}`, whole(count)]),
    ["refused for want of a place", policy.refused ? whole(policy.refused) : null],
  ];
  const list = el("dl");
  for (const [name, value] of facts) if (value) list.append(el("dt", "", name), el("dd", "", String(value)));

  const failures = el("div", "", el("h3", "", "Last errors"));
  const trouble = policy.credentials?.failure;
  if (trouble) {
    failures.append(el("div", "failure", el("p", "bad", credentialsTrouble("Its role", trouble)), el("p", "mono", trouble.detail)));
  }
  const advised = new Set();
  for (const failure of calls.last_errors) {
    const advice = advised.has(failure.reason) ? null : ADVICE[failure.reason];
    advised.add(failure.reason);
    const ids = [
      ["request", failure.request_id],
      ["AWS request", failure.aws_request_id],
      ["trace", failure.trace_id],
    ].filter(([, id]) => id).map(([name, id]) => el("span", "", el("small", "", `${name} `), el("span", "mono", id), "  "));
    const text = [failure.error, failure.detail].filter(Boolean).join(" — ");
    failures.append(el("div", "failure",
      el("p", "", el("strong", "mono", failure.reason),
        failure.error_type ? el("span", "mono", ` ${failure.error_type}`) : null,
        el("small", "", `  ${failure.at}, ${ago(failure.at)}`),
        failure.count > 1 ? el("small", "", `, ${whole(failure.count)} times since ${failure.since}`) : null),
      text ? el("p", "", text) : null,
      ids.length ? el("p", "", ...ids) : null,
      advice ? el("p", "soft", advice) : null));
  }
  if (!trouble && calls.last_errors.length === 0) failures.append(el("p", "soft", "None since the start."));
  return el("div", "detail", list, failures);
}

function showPolicies(answer) {
  const table = by("policies");
  const names = new Set(answer.policies.map((policy) => policy.name));
  for (const [name, row] of bodies) {
    if (!names.has(name)) {
      row.body.remove();
      bodies.delete(name);
    }
  }
  // Who reads a row or is at its button does not want it to go elsewhere.
  const still = [...table.tBodies].some((body) => body.matches(":hover") || body.contains(document.activeElement));
  let before = table.tHead;
  for (const policy of answer.policies) {
    const known = bodies.get(policy.name);
    const row = known ?? makeBody(policy.name);
    bodies.set(policy.name, row);
    showPolicy(row, policy);
    if ((!known || !still) && before.nextElementSibling !== row.body) before.after(row.body);
    if (!still || !known) before = row.body;
  }
  const [count, matching, all] = [answer.policies.length, answer.matching, answer.all];
  let text = matching === all ? `${whole(all)}, the worst first` : `${whole(matching)} of ${whole(all)}, the worst first`;
  if (count < matching) text += `; ${whole(matching - count)} more are not shown: use the filter`;
  if (by("shown").textContent !== text) by("shown").textContent = text;
}

// Fetching.

let asked = 0;
let timer;
let answered = null;

async function fetched(path) {
  const answer = await fetch(path, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(10_000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function refresh() {
  clearTimeout(timer);
  const turn = ++asked;
  const query = new URLSearchParams({ order: "worst", history: "true", limit: String(MOST), match: by("match").value });
  try {
    const [status, policies] = await Promise.all([fetched("status"), fetched(`policies?${query}`)]);
    if (turn !== asked) return;
    showStatus(status);
    showPolicies(policies);
    answered = new Date();
    document.body.classList.remove("stale");
    by("fresh").textContent = "";
  } catch (error) {
    if (turn !== asked) return;
    document.body.classList.add("stale");
    by("fresh").textContent = answered ? `No answer since ${answered.toLocaleTimeString("en-GB")}.` : "No answer.";
    by("fresh").className = "bad";
  }
  if (!document.hidden) timer = setTimeout(refresh, EVERY);
}

try {
  by("match").value = decodeURIComponent(location.hash.slice(1));
} catch {
  // What is no text is no filter.
}
by("match").addEventListener("input", () => {
  history.replaceState(null, "", `#${encodeURIComponent(by("match").value)}`);
  clearTimeout(timer);
  timer = setTimeout(refresh, 200);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
refresh();
