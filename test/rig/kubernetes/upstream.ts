import type { Component } from "../components.ts";
import { startDockerRegistry } from "../docker-registry.ts";
import type { HostsFile } from "../hosts.ts";
import { startRecorder, type RecordedRequest } from "../recorder.ts";
import { startShapedLink } from "../shaped-link.ts";

export interface UpstreamOptions {
  readonly component: Component;
  /** Of this process, as the nodes reach it. */
  readonly address: string;
}

/** The registry of a cluster behind its uplink, with a forwarder between that writes down what is asked of it. */
export interface Upstream extends AsyncDisposable {
  /** Where this process pushes to; not written down. */
  readonly url: string;
  /** What an administrator writes into hosts.toml for a registry that is this one. */
  readonly hosts: HostsFile;
  /** Of the nodes, in the order of their arrival. */
  readonly requests: readonly RecordedRequest[];
  /** Body bytes that the registry has sent for a repository: some of them may wait before the uplink, for whoever has gone. */
  bytesOf(repository: string): number;
  /** Bytes that came through the uplink so far, headers included. */
  readonly crossed: number;
  forget(): void;
  /** Bytes per second of the uplink, for all nodes together; undefined, as at the start: unlimited. */
  setRate(bytesPerSecond: number | undefined): void;
  /** Connections are reset and refused until `on`. */
  off(): Promise<void>;
  on(): Promise<void>;
}

/** Those that came from a containerd itself, past the mirror. */
export const direct = (requests: readonly RecordedRequest[]): readonly RecordedRequest[] =>
  requests.filter(({ headers }) => String(headers["user-agent"]).startsWith("containerd/"));

export async function startUpstream({ component, address }: UpstreamOptions): Promise<Upstream> {
  await using starting = new AsyncDisposableStack();
  const registry = starting.use(await startDockerRegistry({ component }));
  const recorder = starting.use(await startRecorder({ target: registry.url }));
  const { hostname, port } = new URL(recorder.url);
  const target = { host: hostname, port: Number(port) };
  const link = await startShapedLink({ target, host: address });
  starting.defer(() => link.close());
  const server = `http://${link.host}:${link.port}`;
  const running = starting.move();
  return {
    url: registry.url,
    hosts: { server, mirrors: [server] },
    requests: recorder.requests,
    bytesOf: (repository) =>
      recorder.requests
        .filter(({ url }) => url.startsWith(`/v2/${repository}/`))
        .reduce((sum, { bytes }) => sum + bytes, 0),
    get crossed() {
      return link.bytes.down;
    },
    forget: () => recorder.clear(),
    setRate: (bytesPerSecond) => link.setRate(bytesPerSecond),
    off: () => link.kill(),
    on: () => link.restore(),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
