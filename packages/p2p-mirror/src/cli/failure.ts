import { codeOf, CodedError, ConfigError } from "@p2p-mirror/shared/config";
import type { ExitCode } from "./terminal.ts";

/** A command could not do its part; the message is the whole line that the user sees. */
export class CommandFailure extends CodedError {
  override readonly name = "CommandFailure";
  readonly code = "COMMAND_FAILED";
}

export interface Report {
  readonly exitCode: ExitCode;
  readonly text: string;
}

/**
 * What the user is told of an error, and the exit code. Errors that the project or the operating system coded are a line;
 * anything else is a fault of the program, and comes with its stack.
 */
export function reportOf(error: unknown): Report {
  if (error instanceof ConfigError) return { exitCode: 2, text: line(error.message) };
  if (error instanceof DOMException) return { exitCode: 1, text: line(error.message) };
  if (error instanceof AggregateError && error.errors.length > 0) {
    const inner: unknown = error.errors[0];
    if (codeOf(error) === "") return reportOf(inner);
  }
  if (isExpected(error)) return { exitCode: 1, text: line(messageOf(error)) };
  if (error instanceof Error) return { exitCode: 1, text: `${error.stack ?? error.message}\n` };
  return { exitCode: 1, text: line(String(error)) };
}

/** Coded itself, or a plain error around one that is: "closing the cache failed" (no space left on device). */
function isExpected(error: unknown): boolean {
  for (let inner = error; inner instanceof Error; inner = inner.cause) {
    if (codeOf(inner) !== "") return true;
  }
  return false;
}

/** The message with the innermost reason behind it: a bare "fetch failed" helps nobody. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  let reason: unknown = error;
  for (let depth = 0; depth < 8 && reason instanceof Error; depth++) {
    // All addresses of a name failed: the first says as much as all.
    const inner: unknown = reason instanceof AggregateError ? reason.errors[0] : reason.cause;
    if (!(inner instanceof Error) || inner.message === "") break;
    reason = inner;
  }
  const text = reason instanceof Error ? reason.message : "";
  return text === "" || error.message.includes(text) ? error.message : `${error.message} (${text})`;
}

const line = (text: string): string => `p2p-mirror: ${text.replaceAll(/\s*\n\s*/g, " ")}\n`;
