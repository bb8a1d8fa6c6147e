import os from "node:os";
import { RigError } from "./errors.ts";
import { exec } from "./exec.ts";

export interface GoModule {
  readonly path: string;
  readonly version: string;
  /** What its files hash to, as in go.sum. */
  readonly sum: string;
}

/** The folder with the files of a Go module, which is downloaded once. @throws RigError where they are others than were pinned */
export async function moduleFolder({ path, version, sum }: GoModule): Promise<string> {
  const env = { ...process.env, GOTOOLCHAIN: "local", GOFLAGS: "", GOWORK: "off" };
  // Beside no go.mod: that of another module does not count.
  const { stdout } = await exec(["go", "mod", "download", "-json", `${path}@${version}`], {
    cwd: os.tmpdir(),
    env,
  });
  const { Dir: folder, Sum: found } = JSON.parse(stdout) as { readonly Dir: string; readonly Sum: string };
  if (found !== sum) throw new RigError("COMMAND_FAILED", `${path}@${version} is ${found}, not ${sum}`);
  return folder;
}
