import type { Clock, Logger, Service } from "@p2p-mirror/shared";
import { linkSignal } from "@p2p-mirror/shared";
import { brokenOf } from "../status-verdict.ts";
import type { DoctorReport } from "../status.ts";
import type { KubernetesApi } from "./api-client.ts";
import { conditionOf, eventOf, type Condition } from "./node-objects.ts";

/** A condition that is the same is said again this often, as kubelet does with its own. */
const HEARTBEAT_MS = 300_000;
/** The API server may be away when the mirror ends. */
const REMOVE_MS = 3_000;

export interface NodeConditionDeps {
  readonly api: KubernetesApi;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * What the doctor finds, as the condition `ImageMirrorInForce` of this Node, with an Event when it changes. What the API
 * server does not take is said again with the doctor's next round. At the end the condition is removed: a Node without it has
 * no mirror that runs.
 */
export class NodeCondition implements Service {
  readonly name = "node condition";
  readonly #node: string;
  readonly #deps: NodeConditionDeps;
  readonly #closing = new AbortController();
  /** What the Node has, as far as this mirror has said it. */
  #said: { readonly condition: Condition; readonly at: number } | undefined;
  #saying: Promise<void> | undefined;

  /** @param node its name */
  constructor(node: string, deps: NodeConditionDeps) {
    this.#node = node;
    this.#deps = deps;
  }

  async start(): Promise<void> {}

  /**
   * Resolves when it was said, or could not be; never rejects. A report while the one before is still on its way is passed
   * over: there will be another.
   */
  async tell(report: DoctorReport): Promise<void> {
    if (this.#saying !== undefined || this.#closing.signal.aborted) return;
    this.#saying = this.#say(report);
    await this.#saying;
    this.#saying = undefined;
  }

  async close(): Promise<void> {
    this.#closing.abort(new DOMException("the mirror is closing", "AbortError"));
    await this.#saying;
    if (this.#said === undefined) return;
    using deadline = linkSignal([], REMOVE_MS);
    try {
      await this.#patch({ type: this.#said.condition.type, $patch: "delete" }, deadline.signal);
    } catch (error) {
      // The rights may be gone before the mirror is.
      this.#deps.logger.warn({ err: error, node: this.#node }, "the Node keeps the condition of this mirror");
    }
  }

  async #say(report: DoctorReport): Promise<void> {
    const { clock, logger, api } = this.#deps;
    const before = this.#said;
    const condition = conditionOf(brokenOf(report), before?.condition, new Date(clock.date()));
    const isSame =
      before?.condition.status === condition.status && before.condition.message === condition.message;
    if (isSame && clock.now() - before.at < HEARTBEAT_MS) return;
    const { signal } = this.#closing;
    try {
      const answer = await this.#patch(condition, signal);
      this.#said = { condition, at: clock.now() };
      const turned = condition.status !== before?.condition.status;
      if (!turned || (before === undefined && condition.status === "True")) return;
      const event = eventOf(condition, { name: this.#node, uid: uidOf(answer) });
      await api.ask({ method: "POST", path: "/api/v1/namespaces/default/events", body: event }, signal);
    } catch (error) {
      if (signal.aborted) return;
      logger.warn({ err: error, node: this.#node }, "the Node's condition could not be said");
    }
  }

  async #patch(condition: object, signal: AbortSignal): Promise<unknown> {
    return this.#deps.api.ask(
      {
        method: "PATCH",
        path: `/api/v1/nodes/${this.#node}/status`,
        contentType: "application/strategic-merge-patch+json",
        body: { status: { conditions: [condition] } },
      },
      signal,
    );
  }
}

/** Of the Node in an answer; its name, as kubelet has it in its own Events, when there is none. */
function uidOf(answer: unknown): string | undefined {
  const metadata: unknown =
    typeof answer === "object" && answer !== null ? Reflect.get(answer, "metadata") : undefined;
  const uid: unknown =
    typeof metadata === "object" && metadata !== null ? Reflect.get(metadata, "uid") : undefined;
  return typeof uid === "string" ? uid : undefined;
}
