/** What the settings of a registry may say of it, of whatever is made from them. */
interface RegistrySettings {
  readonly url?: string | undefined;
  readonly ca?: readonly string[] | undefined;
  readonly clientCert?: object | undefined;
  readonly skipVerify?: boolean | undefined;
  readonly headers?: Readonly<Record<string, string | readonly string[]>> | undefined;
  readonly overridePath?: boolean | undefined;
}

/** Whether requests carry something by which the registry could know this node, before any login. */
export const isKnownByConfig = ({
  headers,
  clientCert,
}: Pick<RegistrySettings, "headers" | "clientCert">): boolean =>
  clientCert !== undefined || (headers !== undefined && Object.keys(headers).length > 0);

/**
 * Whether a registry's settings say where or how it is reached, and not only what is kept of it: then they count, and its
 * hosts.toml does not.
 */
export const saysWhere = (config: RegistrySettings | undefined): boolean =>
  config !== undefined &&
  (config.url !== undefined ||
    (config.ca?.length ?? 0) > 0 ||
    config.skipVerify === true ||
    config.overridePath === true ||
    isKnownByConfig(config));
