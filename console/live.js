import { frame } from "./lib/page.js";

frame("live");
