import { get, type IncomingMessage } from "node:http";
import t, { type Test } from "tap";
import { Registry } from "prom-client";
import { request } from "undici";
import { silentLogger, systemClock, type Clock } from "@p2p-mirror/shared";
import { createAdminEndpoint, type AdminEndpoint } from "../../src/http/admin-endpoint.ts";
import { until } from "../../../../test/rig/until.ts";

const PAGE = new URL("../../page/", import.meta.url);

/** Time that passes when told; `pass` says whether anything was due. */
function heldClock(): Clock & { pass(): boolean } {
  let due: (() => void) | undefined;
  return {
    ...systemClock,
    after: (_ms, callback) => {
      due = callback;
      return () => (due = undefined);
    },
    pass() {
      const now = due;
      due = undefined;
      now?.();
      return now !== undefined;
    },
  };
}

async function startAdmin(t: Test, status: () => Promise<unknown>) {
  const clock = heldClock();
  const admin = createAdminEndpoint(
    { listen: { host: "127.0.0.1", port: 0 } },
    { registry: new Registry(), ready: () => true, status, page: PAGE, clock, logger: silentLogger() },
  );
  await admin.start(new AbortController().signal);
  t.teardown(() => admin.close());
  return { admin, clock };
}

interface Watcher {
  readonly response: IncomingMessage;
  /** Data of the events so far. */
  events(): unknown[];
  readonly ended: Promise<void>;
}

function watch(t: Test, admin: AdminEndpoint): Promise<Watcher> {
  return new Promise((resolve, reject) => {
    const asking = get(`${admin.url}/events`, { agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("error", () => undefined);
      const ended = new Promise<void>((end) => response.on("close", end));
      const events = (): unknown[] =>
        [...text.matchAll(/^event: status\ndata: (.*)\n\n/gm)].map(([, data = ""]) => JSON.parse(data));
      resolve({ response, events, ended });
    });
    asking.on("error", reject);
    t.teardown(() => asking.destroy());
  });
}

await t.test("the page and its files come with a policy that lets nothing else in", async (t) => {
  const { admin } = await startAdmin(t, async () => ({}));
  const page = await request(`${admin.url}/`);
  const html = await page.body.text();
  t.match(page.headers["content-type"], "text/html");
  const policy = String(page.headers["content-security-policy"]);
  t.match(policy, /default-src 'none'.*script-src 'self'.*frame-ancestors 'none'/);
  t.notMatch(policy, /unsafe|\*|https?:/);
  t.notMatch(html, /<script(?![^>]* src=)|<style| on\w+=| style=/i, "nothing that the policy would refuse");
  const names = [...html.matchAll(/(?:src|href)="([\w.]+)"/g)].map(([, name = ""]) => name);
  t.same(names, ["page.css", "page.js"]);
  for (const name of [...names, "sections.js", "elements.js", "format.js"]) {
    const answer = await request(`${admin.url}/${name}`);
    t.equal(answer.statusCode, 200, name);
    t.match(answer.headers["content-type"], name.endsWith("css") ? "text/css" : "text/javascript");
    for (const [, other = ""] of (await answer.body.text()).matchAll(/from "\.\/([\w.]+)"/g)) {
      t.equal((await request(`${admin.url}/${other}`)).statusCode, 200, `${name} imports ${other}`);
    }
  }
  for (const path of ["/tsconfig.json", "/../package.json", "/%2e%2e/package.json", "/index.html"]) {
    t.equal((await request(`${admin.url}${path}`)).statusCode, 404, path);
  }
});

await t.test(
  "events: all at first, then what changed, and nothing is asked while nobody watches",
  async (t) => {
    let status: Record<string, unknown> = { node: { id: "a" }, peers: [] };
    let asked = 0;
    const { admin, clock } = await startAdmin(t, async () => {
      asked += 1;
      return status;
    });
    t.equal(asked, 0);
    const first = await watch(t, admin);
    t.match(first.response.headers["content-type"], /^text\/event-stream/);
    await until("the first event", () => first.events().length === 1);
    t.same(first.events(), [status]);
    status = { node: { id: "a" }, peers: [{ id: "<b>\n" }] };
    clock.pass();
    await until("the second event", () => first.events().length === 2);
    t.same(first.events()[1], { peers: [{ id: "<b>\n" }] });

    const second = await watch(t, admin);
    await until("the newcomer's event", () => second.events().length === 1);
    t.same(second.events(), [status], "who comes later is told all");
    await until("the first one's event", () => first.events().length === 3);
    t.same(first.events()[2], {}, "and the other what is new: nothing");

    first.response.destroy();
    second.response.destroy();
    await Promise.all([first.ended, second.ended]);
    await until("nothing more is due", () => !clock.pass());
    const before = asked;
    t.notOk(clock.pass());
    t.equal(asked, before);
  },
);

await t.test("a mirror that starts is watched until it says something", async (t) => {
  let status: unknown = {};
  const { admin, clock } = await startAdmin(t, async () => status);
  const watcher = await watch(t, admin);
  await until("an event", () => watcher.events().length === 1);
  t.same(watcher.events(), [{}]);
  status = { node: { id: "a" } };
  clock.pass();
  await until("another", () => watcher.events().length === 2);
  t.same(watcher.events()[1], status);
});

await t.test("eight may watch; closing the endpoint ends them all", async (t) => {
  const { admin } = await startAdmin(t, async () => ({ node: {} }));
  const watchers = await Promise.all(Array.from({ length: 8 }, () => watch(t, admin)));
  t.equal((await watch(t, admin)).response.statusCode, 503);
  t.equal((await request(`${admin.url}/events`, { method: "HEAD" })).statusCode, 404, "HEAD does not watch");
  await admin.close();
  await Promise.all(watchers.map(({ ended }) => ended));
  t.pass("all ended");
});
