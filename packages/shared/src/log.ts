import { pino, stdSerializers, type Logger } from "pino";

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
      serializers: { err: describeError },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: {
        paths: ["authorization", "*.authorization", "headers.cookie", "password", "*.password"],
        remove: true,
      },
    },
    destination,
  );
}

/** How many reasons behind an error are told. */
const MAX_CAUSES = 5;

/**
 * An error in a log line. One with a code was foreseen: it is its type, code and message, and the messages behind it. Any
 * other is a fault of ours and keeps its stack.
 */
export function describeError(error: unknown): unknown {
  if (!(error instanceof Error) || !("code" in error)) {
    return error instanceof Error ? stdSerializers.err(error) : error;
  }
  const causes: string[] = [];
  for (let cause = error.cause; cause instanceof Error && causes.length < MAX_CAUSES; cause = cause.cause) {
    causes.push(cause.message);
  }
  const { name, code, message } = error;
  return { type: name, code, message, ...(causes.length > 0 && { causes }) };
}

/** For tests and tools: says nothing. */
export const silentLogger = (): Logger => pino({ level: "silent" });
