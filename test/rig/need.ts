import type { Test } from "tap";
import { type Component, type ComponentName, component } from "./components.ts";
import { MissingError } from "./errors.ts";
import { probeCgroups } from "./kubernetes/cgroups.ts";
import { probeNetworks } from "./netns.ts";

export interface Needs {
  /** Root, for mounts and unpacking. */
  readonly root?: boolean;
  /** Network namespaces that can really be made (root is not enough inside some containers). */
  readonly netns?: boolean;
  /** Machines made of namespaces (netns, too): cgroup v1 in which cgroups can be made. */
  readonly machines?: boolean;
  readonly components?: readonly ComponentName[];
}

/** The components that were asked for, by name. Asking for another one is a mistake of the test, and throws. */
export type Components = (name: ComponentName) => Component;

/**
 * Brings what a test needs, or says why it cannot run here: `undefined` then, after a skip of the test with reason and
 * remedy, or with CI=true a failure, so that nothing goes missing there unseen.
 *
 *     const components = await need(t, { netns: true, components: ["containerd-1.7"] });
 *     if (components === undefined) return;
 */
export async function need(t: Test, needs: Needs): Promise<Components | undefined> {
  const missing: MissingError[] = [];
  const check = async (work: () => void | Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof MissingError)) throw error;
      missing.push(error);
    }
  };
  if (needs.root === true) await check(probeRoot);
  if (needs.netns === true || needs.machines === true) await check(probeNetworks);
  if (needs.machines === true) await check(probeCgroups);
  const found = new Map<ComponentName, Component>();
  for (const name of needs.components ?? []) {
    await check(async () => void found.set(name, await component(name)));
  }
  if (missing.length === 0) {
    return (name) => {
      const one = found.get(name);
      if (one === undefined) throw new TypeError(`${name} was not asked for in need()`);
      return one;
    };
  }
  const why = missing.map((error) => error.message).join(" | ");
  if (process.env["CI"] === "true") t.fail(`cannot run here: ${why}`);
  else t.pass("can run here", { skip: why });
  return undefined;
}

function probeRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new MissingError("PRIVILEGE_MISSING", "root", "this process is not root", "run as root");
}
