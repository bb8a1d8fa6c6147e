import { CodedError, ConfigError } from "@p2p-mirror/shared/config";
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

const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;

/**
 * What the user is told of an error, and the exit code. Errors that the project or the operating system coded are a line;
 * anything else is a fault of the program, and comes with its stack.
 */
export function reportOf(error: unknown): Report {
  if (error instanceof ConfigError) return { exitCode: 2, text: line(error.message) };
  if (error instanceof AggregateError && error.errors.length > 0) {
    const inner: unknown = error.errors[0];
    if (codeOf(error) === undefined) return reportOf(inner);
  }
  if (codeOf(error) !== undefined) return { exitCode: 1, text: line(messageOf(error)) };
  if (error instanceof Error) return { exitCode: 1, text: `${error.stack ?? error.message}\n` };
  return { exitCode: 1, text: line(String(error)) };
}

/** The message with the reason behind it: a bare "fetch failed" helps nobody. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const reason = error.cause instanceof Error ? error.cause.message : "";
  return reason === "" || error.message.includes(reason) ? error.message : `${error.message} (${reason})`;
}

const line = (text: string): string => `p2p-mirror: ${text.replaceAll(/\s*\n\s*/g, " ")}\n`;
