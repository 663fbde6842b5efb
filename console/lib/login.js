// Who is logged in, and what they may do.

import { get, Problem, request } from "./api.js";

/** @typedef {{authentication: boolean, tenant: string, scopes: string[], key?: {id: string, name: string}, expires_at?: string}} Login */

const EVERYTHING = ["realtime", "sessions:read", "sessions:write", "admin"];
/** @type {Promise<Login> | null} */
let known = null;

/**
 * The login of this browser, asked for once a page. A service without keys, or without logins, has none.
 * @returns {Promise<Login>}
 */
export function login() {
  known ??= read();
  known.catch(() => (known = null));
  return known;
}

async function read() {
  try {
    return { tenant: "", scopes: [], ...(await get("/v1/login")) };
  } catch (error) {
    if (error instanceof Problem && (error.status === 404 || error.status === 501)) {
      return { authentication: false, tenant: "", scopes: EVERYTHING };
    }
    throw error;
  }
}

/**
 * Whether this scope is given: what needs another one is not shown at all.
 * @param {Login} who
 * @param {string} scope
 */
export const may = (who, scope) => !who.authentication || who.scopes.includes(scope);

export async function logOut() {
  await request("/v1/login", { method: "DELETE", stay: true });
  location.assign("login.html");
}
