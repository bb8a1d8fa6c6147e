/** The status page as a person sees it: in a real browser, wide and narrow, with the live status of real mirrors. */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { launch, type Browser, type Page } from "puppeteer-core";
import t, { type Test } from "tap";
import { Registry } from "prom-client";
import { silentLogger } from "@p2p-mirror/shared";
import { createAdminEndpoint } from "../packages/p2p-mirror/src/http/admin-endpoint.ts";
import type { MirrorStatus } from "../packages/p2p-mirror/src/status.ts";
import type { Component } from "./rig/components.ts";
import { makeImage, pushImage } from "./rig/images.ts";
import { startMirror } from "./rig/mirror.ts";
import { need } from "./rig/need.ts";
import { startOciRegistry } from "./rig/oci-registry.ts";
import { pullImage } from "./rig/pull.ts";
import { startShapedLink } from "./rig/shaped-link.ts";

const MIB = 1024 * 1024;
const DESKTOP = { width: 1200, height: 900 };
const PHONE = { width: 360, height: 740, isMobile: true, hasTouch: true };
/** A folder for pictures of what the tests saw, for whoever changes the page; none by default. */
const PICTURES = process.env["STATUS_PAGE_PICTURES"];

function startBrowser(chromium: Component): Promise<Browser> {
  return launch({
    executablePath: chromium.bin("chromium-headless-shell"),
    headless: "shell",
    // Its sandbox does not start as root; what it shows here is our own page.
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    env: chromium.env,
  });
}

interface Opened {
  readonly page: Page;
  /** What the browser refused or could not run; stays empty. */
  readonly complaints: string[];
}

async function open(t: Test, browser: Browser, url: string, viewport: typeof DESKTOP): Promise<Opened> {
  const page = await browser.newPage();
  t.teardown(() => page.close());
  const complaints: string[] = [];
  page.on("console", (message) => void complaints.push(message.text()));
  page.on("pageerror", (error) => void complaints.push(String(error)));
  await page.goto(url);
  await resize(page, viewport);
  return { page, complaints };
}

/** In the page; as text, since the types of a browser are not those of Node. */
const ask = (page: Page, expression: string): Promise<unknown> => page.evaluate(expression);

/** The browser loads the page anew when it becomes a phone, or a desktop again. */
async function resize(page: Page, viewport: typeof DESKTOP): Promise<void> {
  await page.setViewport(viewport);
  await page.waitForSelector("#live.on");
  await page.waitForSelector("#held .bar");
}

const textOf = async (page: Page, selector: string): Promise<string> =>
  String(await ask(page, `document.querySelector(${JSON.stringify(selector)}).innerText`));

const picture = async (page: Page, name: string): Promise<void> => {
  if (PICTURES === undefined) return;
  await mkdir(PICTURES, { recursive: true });
  await writeFile(path.join(PICTURES, `${name}.png`), await page.screenshot({ fullPage: true }));
};

/** Of a part of the first flight's bar, as an expression. */
const width = (part: string): string => `(document.querySelector(".flight .bar .${part}")?.clientWidth ?? 0)`;

/** Nothing is to be reached by scrolling sideways. */
const overflow = (page: Page): Promise<unknown> =>
  ask(page, "document.documentElement.scrollWidth - document.documentElement.clientWidth");

/** The least size of a font that something is written in, in CSS pixels. */
const smallestFont = (page: Page): Promise<unknown> =>
  ask(
    page,
    `Math.min(...[...document.querySelectorAll("body *")].filter((one) => one.innerText?.trim() && one.checkVisibility()).map((one) => parseFloat(getComputedStyle(one).fontSize)))`,
  );

const ground = (page: Page): Promise<unknown> =>
  ask(page, "getComputedStyle(document.documentElement).backgroundColor");

/** Until a part of the page says something. */
const says = async (page: Page, id: string, what: RegExp): Promise<void> =>
  void (await page.waitForFunction(`${what}.test(document.getElementById("${id}").textContent)`));

async function liveMirrors(t: Test, browser: Browser): Promise<void> {
  await t.test("a blob on its way, the peer it comes from, and what is held then", async (t) => {
    const registry = await startOciRegistry();
    t.teardown(() => registry.close());
    const image = makeImage({ seed: "status page", layers: [8 * MIB] });
    await pushImage(image, { registry: registry.url, repository: "team/app", tags: ["v1"] });
    // Slow enough to be looked at.
    const link = await startShapedLink({ target: { host: "127.0.0.1", port: registry.port }, downRate: MIB });
    t.teardown(() => link.close());
    const upstreams = { "registry.example.test": `http://127.0.0.1:${link.port}` };
    const certs = t.testdir({ _default: {} });
    const first = await startMirror({ upstreams, flags: ["--zone", "eu-1", "--hosts-dir", certs] });
    t.teardown(() => first.close());
    const bootstrap = [first.p2pAddress];
    const second = await startMirror({ name: "second", upstreams, bootstrap, flags: ["--zone", "eu-2"] });
    t.teardown(() => second.close());

    const { page, complaints } = await open(t, browser, first.adminUrl, DESKTOP);
    await says(page, "peers", /eu-2/);
    t.match(await textOf(page, "#node"), /ready[\s\S]*zone\s+eu-1/);
    t.match(
      await textOf(page, "#hosts"),
      /_default\s+first\s+http:\/\/127\.0\.0\.1:\d+, then the registry itself/,
    );
    t.match(await textOf(page, "#flights"), /nothing is being fetched/);

    const pulled = Promise.all(
      [first, second].map(({ url }) =>
        pullImage(image, { url, registry: "registry.example.test", repository: "team/app", reference: "v1" }),
      ),
    );
    pulled.catch(() => undefined);
    await page.waitForFunction(`${width("upstream")} > 0 && ${width("peers")} > 0`);
    t.match(await textOf(page, ".flight"), /sha256:[0-9a-f]{12} \d+ % of 8\.0 MiB.*1 reader/);
    await picture(page, "desktop");
    const light = await ground(page);
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    t.not(await ground(page), light, "dark where the system is");
    await resize(page, PHONE);
    t.equal(await overflow(page), 0);
    t.equal(await ask(page, "innerWidth"), PHONE.width, "laid out for a phone, not as a desktop made small");
    const font = Number(await smallestFont(page));
    t.ok(font >= 11, `nothing is written smaller than ${font} px`);
    await picture(page, "phone-dark");

    await pulled;
    await says(page, "flights", /nothing is being fetched/);
    await says(page, "held", /team\/app:v1/);
    t.match(await textOf(page, "#upstreams"), /registry\.example\.test[\s\S]*ok/);
    t.equal(await overflow(page), 0);
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
    await picture(page, "phone-light");
    t.same(complaints, []);
  });
}

/** What a registry, a peer or a file may be called by somebody who wishes the reader ill. */
const EVIL = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`;
const LONG = "very-long-name.".repeat(30);

function evilStatus(): MirrorStatus {
  const digest = `sha256:${"ab".repeat(32)}`;
  return {
    node: {
      id: EVIL,
      version: EVIL,
      startedAt: new Date().toISOString(),
      ready: true,
      advertised: EVIL,
      access: "public",
      zone: EVIL,
    },
    peers: [{ id: EVIL, address: EVIL, state: "up", version: EVIL, zone: EVIL, latencyMs: 12 }],
    flights: [
      {
        digest,
        size: 10,
        received: 5,
        readers: 1,
        fromUpstream: 5,
        fromPeers: 0,
        sources: [
          { kind: "upstream", id: EVIL },
          { kind: "upstream", id: LONG },
        ],
      },
    ],
    swarm: { banned: [EVIL] },
    limits: {},
    cache: { blobs: 1, bytes: 5, maxBytes: 10, freeBytes: 10 },
    images: [{ reference: `${EVIL}${LONG}`, digest, mediaType: "", resolvedAt: new Date().toISOString() }],
    upstreams: [{ registry: EVIL, host: LONG, state: "unreachable", error: EVIL }],
    bootstrap: [{ address: EVIL, reason: "refused" }],
    hosts: [{ directory: EVIL, inForce: false, managed: false, asks: [EVIL, LONG], problem: EVIL }],
    doctor: {
      checkedAt: new Date().toISOString(),
      findings: [{ check: EVIL, severity: "broken", what: EVIL, why: LONG, fix: EVIL }],
      skipped: [],
    },
  };
}

async function startAdmin(t: Test, port = 0) {
  const admin = createAdminEndpoint(
    { listen: { host: "127.0.0.1", port } },
    {
      registry: new Registry(),
      ready: () => true,
      status: async () => evilStatus(),
      page: new URL("../packages/p2p-mirror/page/", import.meta.url),
      logger: silentLogger(),
    },
  );
  await admin.start(new AbortController().signal);
  t.teardown(() => admin.close());
  return admin;
}

async function hostileNames(t: Test, browser: Browser): Promise<void> {
  await t.test("names are text, whatever they are, and long ones are broken into lines", async (t) => {
    const admin = await startAdmin(t);
    const { page, complaints } = await open(t, browser, admin.url, PHONE);
    await page.waitForSelector(".finding");
    for (const id of ["node", "doctor", "flights", "peers", "upstreams", "hosts", "held"]) {
      t.ok((await textOf(page, `#${id}`)).includes("<img src=x"), `#${id} shows it as it is`);
    }
    t.match(await textOf(page, "#peers"), /\b12 ms\b/);
    t.equal(await page.$("main img, main script"), null);
    t.not(await page.title(), "taken");
    t.equal(await overflow(page), 0, "on a phone");
    await picture(page, "phone-evil");
    await resize(page, DESKTOP);
    t.equal(await overflow(page), 0, "on a desktop");
    t.same(complaints, []);
  });
}

async function comesBack(t: Test, browser: Browser): Promise<void> {
  await t.test("a mirror that goes away is said to be gone, and shown again when it is back", async (t) => {
    const admin = await startAdmin(t);
    const { port } = admin.address;
    const { page } = await open(t, browser, admin.url, DESKTOP);
    await admin.close();
    await page.waitForSelector("#live.off");
    t.match(await textOf(page, "#live"), /no connection/);
    await startAdmin(t, port);
    await page.waitForSelector("#live.on");
  });
}

const components = await need(t, { components: ["chromium"] });
if (components !== undefined) {
  const browser = await startBrowser(components("chromium"));
  t.teardown(() => browser.close());
  await liveMirrors(t, browser);
  await hostileNames(t, browser);
  await comesBack(t, browser);
}
