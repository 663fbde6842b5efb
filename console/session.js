import { frame } from "./lib/page.js";

frame("sessions");
