// The transcription of the Vercel AI SDK, with what it returned, as one JSON object on standard output:
// node client.mjs BASE_URL KEY FILE
import { readFile } from "node:fs/promises";
import { createOpenAI } from "@ai-sdk/openai";
import * as ai from "ai";

const [baseURL, apiKey, file] = process.argv.slice(2);
const transcribe = ai.transcribe ?? ai.experimental_transcribe;
const results = {};

async function step(name, { key = apiKey, model = "whisper-1", audio, options = {} } = {}) {
  try {
    const result = await transcribe({
      model: createOpenAI({ baseURL, apiKey: key }).transcription(model),
      audio: audio ?? (await readFile(file)),
      maxRetries: 0,
      providerOptions: { openai: options },
    });
    const { text, segments, language, durationInSeconds, warnings } = result;
    results[name] = { text, segments, language, durationInSeconds, warnings };
  } catch (error) {
    results[name] = { raised: error.name, status: error.statusCode, message: error.message };
  }
  console.error(`${name}: ${JSON.stringify(results[name])}`);
}

await step("whisper-1");
await step("words", { options: { timestampGranularities: ["word"] } });
await step("segments and language", { options: { timestampGranularities: ["segment"], language: "en", prompt: "Dalston" } });
await step("gpt-4o-transcribe", { model: "gpt-4o-transcribe" });
await step("wrong key", { key: "wrong" });
await step("wrong model", { model: "gpt-5" });
await step("not audio", { audio: new TextEncoder().encode("not audio at all".repeat(100)) });
console.log(JSON.stringify(results));
