// What the scopes of keys allow, in words.

/** @type {[string, string][]} */
export const SCOPES = [
  ["realtime", "Transcribe: live sessions, uploads of files, and tokens for browsers."],
  ["sessions:read", "List and read sessions and jobs, and download recordings and transcripts."],
  ["sessions:write", "Delete and end sessions, enhance recordings, cancel and retry jobs."],
  ["admin", "Manage keys and read the status. It includes no other scope."],
];
