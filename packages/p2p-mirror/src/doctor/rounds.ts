import type { Clock, Logger, Service } from "@p2p-mirror/shared";
import { Gauge, type Registry } from "prom-client";
import type { DoctorReport, Finding, MirrorStatus } from "../status.ts";
import { brokenOf } from "../status-verdict.ts";
import { CHECKS } from "./checks.ts";
import type { Check, DoctorSettings } from "./check.ts";
import { examine } from "./examine.ts";
import { createSubject } from "./subject.ts";

/** After a start, peers and registries have not been asked yet. */
const FIRST_MS = 10_000;
const EVERY_MS = 60_000;
/** Rounds between those in which a canary is sent. */
const CANARY_ROUNDS = 10;

export interface RoundsDeps {
  readonly status: () => Promise<MirrorStatus | undefined>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
  /** Who else is told what was found. */
  readonly tell?: ((report: DoctorReport) => void) | undefined;
  /** Default: all. */
  readonly checks?: readonly Check[];
}

/**
 * The doctor's rounds while the mirror serves: its cheap checks every minute, all of them every ten. A check that has found
 * something is made every minute until it is gone, so that what was mended is not reported for ten; all are made soon after
 * containerd was restarted, since that is when its configuration counts.
 */
export class DoctorRounds implements Service {
  readonly name = "doctor";
  readonly #settings: DoctorSettings;
  readonly #deps: RoundsDeps;
  readonly #checks: readonly Check[];
  readonly #gauge: Gauge<"check" | "severity">;
  readonly #closing = new AbortController();
  #inForce: Gauge | undefined;
  #report: DoctorReport | undefined;
  /** Of the checks that this round does not make. */
  #kept: readonly Finding[] = [];
  #rounds = 0;
  #round: Promise<void> | undefined;
  #takeBack: (() => void) | undefined;
  #due = 0;

  constructor(settings: DoctorSettings, deps: RoundsDeps) {
    this.#settings = settings;
    this.#deps = deps;
    this.#checks = deps.checks ?? CHECKS;
    this.#gauge = new Gauge({
      name: "p2p_mirror_doctor_findings",
      help: "What is wrong around this node, by check and severity (broken, warning); the status says what it is",
      labelNames: ["check", "severity"],
      registers: [deps.registry],
    });
  }

  /** What was found the last time. */
  get report(): DoctorReport | undefined {
    return this.#report;
  }

  async start(): Promise<void> {
    this.#next(FIRST_MS);
  }

  /** The node may be another now: the next round has all checks, and is not far. */
  soon(): void {
    this.#rounds = 0;
    // A round that is under way asks for the next one itself; one that is near is not put off, or who restarts all the time
    // would see none.
    if (this.#takeBack === undefined || this.#due - this.#deps.clock.now() <= FIRST_MS) return;
    this.#takeBack();
    this.#next(FIRST_MS);
  }

  async close(): Promise<void> {
    this.#closing.abort(new DOMException("the mirror is closing", "AbortError"));
    this.#takeBack?.();
    await this.#round;
  }

  #next(ms: number): void {
    if (this.#closing.signal.aborted) return;
    this.#due = this.#deps.clock.now() + ms;
    this.#takeBack = this.#deps.clock.after(ms, () => {
      this.#takeBack = undefined;
      this.#round = this.#look().finally(() => this.#next(this.#rounds === 0 ? FIRST_MS : EVERY_MS));
    });
  }

  async #look(): Promise<void> {
    const { clock, logger, status } = this.#deps;
    const all = this.#rounds % CANARY_ROUNDS === 0 && this.#settings.hostsDir !== undefined;
    this.#rounds += 1;
    const found = new Set(this.#kept.map(({ check }) => check));
    const checks = this.#checks.filter(({ name, cheap }) => cheap || all || found.has(name));
    const subject = createSubject(this.#settings, status);
    try {
      const { signal } = this.#closing;
      const report = await examine(checks, subject, { signal, now: () => clock.date() });
      const made = new Set(checks.map(({ name }) => name));
      const kept = this.#kept.filter(({ check }) => !made.has(check));
      this.#tell({ ...report, findings: [...report.findings, ...kept] });
    } catch (error) {
      if (!this.#closing.signal.aborted) logger.error({ err: error }, "the doctor's round failed");
    } finally {
      subject.close();
    }
  }

  #tell(report: DoctorReport): void {
    const { logger } = this.#deps;
    const before = new Set(this.#kept.map(({ what }) => what));
    const now = new Set(report.findings.map(({ what }) => what));
    for (const { check, severity, what, fix } of report.findings) {
      if (!before.has(what)) logger.warn({ check, severity, what, fix }, "the doctor has found something");
    }
    for (const { check, what } of this.#kept) {
      if (!now.has(what)) logger.info({ check, what }, "what the doctor had found is gone");
    }
    this.#gauge.reset();
    for (const { name: check } of this.#checks) {
      for (const severity of ["broken", "warning"] as const) {
        const found = report.findings.filter((one) => one.check === check && one.severity === severity);
        this.#gauge.set({ check, severity }, found.length);
      }
    }
    // Not before the first look: a gauge begins with 0.
    this.#inForce ??= new Gauge({
      name: "p2p_mirror_in_force",
      help: "1: nothing broken was found; 0: images of this node are pulled past the mirror, or not at all",
      registers: [this.#deps.registry],
    });
    this.#inForce.set(brokenOf(report).length === 0 ? 1 : 0);
    this.#kept = report.findings;
    this.#report = report;
    this.#deps.tell?.(report);
  }
}
