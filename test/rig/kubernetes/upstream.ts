import type { Component } from "../components.ts";
import { startDockerRegistry } from "../docker-registry.ts";
import type { HostsFile } from "../hosts.ts";
import { freePort } from "../ports.ts";
import { startRecorder, type RecordedRequest, type Recorder } from "../recorder.ts";

export interface UpstreamOptions {
  readonly component: Component;
  /** Of this process, as the nodes reach it. */
  readonly address: string;
}

/** The registry of a cluster, behind a forwarder that writes down what is asked of it. */
export interface Upstream extends AsyncDisposable {
  /** Where this process pushes to; not written down. */
  readonly url: string;
  /** What an administrator writes into hosts.toml for a registry that is this one. */
  readonly hosts: HostsFile;
  /** Requests of the nodes, in the order of their arrival. */
  requests(): readonly RecordedRequest[];
  /** Body bytes that were sent for a repository. */
  bytesOf(repository: string): number;
  forget(): void;
  /** Connections are refused until `on`. */
  off(): Promise<void>;
  on(): Promise<void>;
}

export async function startUpstream({ component, address }: UpstreamOptions): Promise<Upstream> {
  const registry = await startDockerRegistry({ component });
  const port = await freePort(address);
  let recorder: Recorder | undefined;
  let earlier: readonly RecordedRequest[] = [];
  const requests = (): readonly RecordedRequest[] => [...earlier, ...(recorder?.requests ?? [])];
  const off = async (): Promise<void> => {
    earlier = requests();
    await recorder?.close();
    recorder = undefined;
  };
  const on = async (): Promise<void> => {
    recorder ??= await startRecorder({ target: registry.url, address, port });
  };
  const close = async (): Promise<void> => {
    await off();
    await registry.close();
  };
  try {
    await on();
  } catch (error) {
    await close();
    throw error;
  }
  const server = `http://${address}:${port}`;
  return {
    url: registry.url,
    hosts: { server, mirrors: [server] },
    requests,
    bytesOf: (repository) =>
      requests()
        .filter(({ url }) => url.startsWith(`/v2/${repository}/`))
        .reduce((sum, { bytes }) => sum + bytes, 0),
    forget() {
      earlier = [];
      recorder?.clear();
    },
    off,
    on,
    [Symbol.asyncDispose]: close,
  };
}
