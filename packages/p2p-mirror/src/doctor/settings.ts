import { saysWhere } from "@p2p-mirror/shared";
import { amountOf } from "@p2p-mirror/shared/config";
import { withoutMirror } from "../config/hosts-settings.ts";
import type { MirrorConfig } from "../config/mirror-config.ts";
import type { DoctorSettings } from "./check.ts";

/** What the doctor looks at, by the mirror's own settings. @param mirror URL of its registry endpoint */
export function doctorSettings(config: MirrorConfig, mirror: string): DoctorSettings {
  const { registryListen, peerListen, p2pListen, adminListen, metricsListen, cacheMinFree } = config;
  return {
    mirror,
    hostsDir: config.hostsDir,
    containerdSocket: config.containerdSocket,
    containerdNamespace: config.containerdNamespace,
    containerdConfig: config.containerdConfig,
    dataDir: config.dataDir,
    minFree: (total) => amountOf(cacheMinFree, total),
    listeners: [
      { setting: "registry_listen", ...registryListen },
      { setting: "peer_listen", ...peerListen },
      { setting: "p2p_listen", ...p2pListen },
      { setting: "admin_listen", ...adminListen },
      ...(metricsListen === undefined ? [] : [{ setting: "metrics_listen", ...metricsListen }]),
    ],
    knowsNobody:
      config.clusterSecretFiles.length > 0 &&
      config.bootstrap.length === 0 &&
      config.bootstrapService === undefined,
    without: withoutMirror(config.registries),
    told: new Set(config.registries.entries().flatMap(([name, one]) => (saysWhere(one) ? [name] : []))),
  };
}
