import { SourceError } from "@p2p-mirror/shared";
import { ContainerdClient, CriImages } from "@p2p-mirror/shared/grpc";
import type { MirrorStatus } from "../status.ts";
import { CannotTell, type DoctorSettings, type Subject, type Version } from "./check.ts";
import { readContainerdConfig, UnreadableConfigError } from "./containerd-config.ts";

/** containerd answers within milliseconds, unless its disk is dead. */
const CALL_MS = 5_000;
/** For a pull that is to fail: the resolver of the node may have to time out on a name that nobody has. */
const PULL_MS = 30_000;

/** A node, looked at over containerd's socket, its files and what the mirror says. `close` ends the connections. */
export function createSubject(
  settings: DoctorSettings,
  status: () => Promise<MirrorStatus | undefined>,
): Subject & { close(): void } {
  let client: ContainerdClient | undefined;
  let cri: CriImages | undefined;
  const socketOf = (): string => {
    if (settings.containerdSocket === undefined) throw new CannotTell("there is no containerd_socket");
    return settings.containerdSocket;
  };
  const ask = async <T>(call: (containerd: ContainerdClient) => Promise<T>): Promise<T> => {
    const socket = socketOf();
    client ??= new ContainerdClient({ socket, namespace: settings.containerdNamespace, timeoutMs: CALL_MS });
    try {
      return await call(client);
    } catch (error) {
      if (!(error instanceof SourceError)) throw error;
      throw new CannotTell(`containerd does not answer at ${socket}`, { cause: error });
    }
  };
  const version = once(() => ask(async (containerd) => parseVersion(await containerd.version())));
  return {
    settings,
    version,
    config: once(async () => {
      const known = await version().catch((error: unknown): undefined => {
        if (!(error instanceof CannotTell)) throw error;
      });
      try {
        return await readContainerdConfig(settings.containerdConfig, known);
      } catch (error) {
        if (!(error instanceof UnreadableConfigError)) throw error;
        throw new CannotTell(`${error.message}; name containerd's config.toml with --containerd-config`, {
          cause: error,
        });
      }
    }),
    images: once(() => ask((containerd) => containerd.images.list())),
    async pull(reference, signal) {
      cri ??= new CriImages({ socket: socketOf() });
      await cri.pull(reference, { signal, timeoutMs: PULL_MS });
    },
    status,
    close() {
      client?.close();
      cri?.close();
    },
  };
}

/** @throws CannotTell */
export function parseVersion(text: string): Version {
  const match = /^v?(\d+)\.(\d+)\.(\d+)/.exec(text);
  if (match === null)
    throw new CannotTell(`containerd calls its version ${JSON.stringify(text.slice(0, 40))}`);
  const [, major, minor, patch] = match.map(Number);
  return { text, major: major ?? 0, minor: minor ?? 0, patch: patch ?? 0 };
}

function once<T>(find: () => Promise<T>): () => Promise<T> {
  let found: Promise<T> | undefined;
  return () => (found ??= find());
}
