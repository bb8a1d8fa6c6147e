import path from "node:path";

export interface ContainerdSettings {
  /** Default: a folder of its own. */
  readonly certsDir?: string | undefined;
  /**
   * From 2.1 on: layers are fetched in parallel ranges of `concurrent_layer_fetch_buffer` bytes. `true` is the 8 MiB
   * people use.
   */
  readonly chunked?: boolean | number;
  /** Layers at a time; containerd's default is 3. Another value makes 2.1's CRI fall back to its local pull. */
  readonly maxConcurrentDownloads?: number;
  /** Go duration ("20s"); 1.7 and later; containerd's default is 5m. */
  readonly imagePullProgressTimeout?: string;
  readonly discardUnpackedLayers?: boolean;
  /** What stands as config_path; "" leaves it out. Default: certsDir. */
  readonly configPath?: string;
  /** More TOML, at the end. */
  readonly more?: string;
  /** 2.x: CRI pulls the way 1.7 does. */
  readonly useLocalImagePull?: boolean;
}

const CHUNK = 8 * 1024 * 1024;

/** A containerd configuration with everything below `home`: format 2 up to 1.7, format 3 from 2.0 on. */
export function containerdConfig(
  version: string,
  home: string,
  settings: ContainerdSettings & { certsDir: string },
): string {
  const sections = version.startsWith("1.") ? version2(settings) : version3(settings);
  return [
    `version = ${version.startsWith("1.") ? 2 : 3}`,
    line("root", path.join(home, "root")),
    line("state", path.join(home, "state")),
    // Its socket is a fixed path, over which several containerds on one machine would fight.
    'disabled_plugins = ["io.containerd.nri.v1.nri"]',
    section("grpc", { address: path.join(home, "c.sock") }),
    section("ttrpc", { address: path.join(home, "c.ttrpc") }),
    ...sections,
    settings.more ?? "",
    "",
  ].join("\n");
}

function version2(settings: ContainerdSettings & { certsDir: string }): string[] {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  return [
    section(cri, {
      max_concurrent_downloads: settings.maxConcurrentDownloads ?? 3,
      image_pull_progress_timeout: settings.imagePullProgressTimeout,
    }),
    section(`${cri}.registry`, { config_path: configPathOf(settings) }),
    section(`${cri}.containerd`, { discard_unpacked_layers: settings.discardUnpackedLayers }),
  ];
}

function version3(settings: ContainerdSettings & { certsDir: string }): string[] {
  const images = 'plugins."io.containerd.cri.v1.images"';
  const chunk = settings.chunked === true ? CHUNK : settings.chunked === false ? undefined : settings.chunked;
  return [
    section(images, {
      image_pull_progress_timeout: settings.imagePullProgressTimeout,
      discard_unpacked_layers: settings.discardUnpackedLayers,
      use_local_image_pull: settings.useLocalImagePull,
    }),
    section(`${images}.registry`, { config_path: configPathOf(settings) }),
    section('plugins."io.containerd.transfer.v1.local"', {
      max_concurrent_downloads: settings.maxConcurrentDownloads ?? 3,
      concurrent_layer_fetch_buffer: chunk,
    }),
  ];
}

const configPathOf = ({ configPath, certsDir }: ContainerdSettings): string | undefined =>
  configPath === "" ? undefined : (configPath ?? certsDir);

type Value = string | number | boolean | undefined;

const section = (name: string, values: Readonly<Record<string, Value>>): string =>
  [
    `\n[${name}]`,
    ...Object.entries(values).flatMap(([key, value]) =>
      value === undefined ? [] : [`  ${line(key, value)}`],
    ),
  ].join("\n");

// JSON's strings are TOML basic strings as long as they hold no characters that only JSON escapes with surrogates.
const line = (key: string, value: string | number | boolean): string => `${key} = ${JSON.stringify(value)}`;
