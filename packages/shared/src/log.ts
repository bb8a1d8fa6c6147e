import { pino, type Logger } from "pino";

export type { Logger } from "pino";

export const LOG_LEVELS = ["error", "warn", "info", "debug", "trace", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/**
 * JSON lines on stderr. Levels: error = somebody must act; warn = degraded, goes on; info = a few lines per image;
 * debug = one per request. Never a credential: what may hold one is redacted here, whatever the caller passes.
 */
export function createLogger(level: LogLevel, destination: { write(line: string): void }): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: {
        paths: ["authorization", "*.authorization", "headers.cookie", "password", "*.password"],
        remove: true,
      },
    },
    destination,
  );
}

/** For tests and tools: says nothing. */
export const silentLogger = (): Logger => pino({ level: "silent" });
