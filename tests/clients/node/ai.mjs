// The AI SDK over chats (openai-compatible) and over responses (its provider for OpenAI); prints what it read as one JSON.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = process.env.OPENAI_BASE_URL;
const apiKey = process.env.OPENAI_API_KEY;
const compatible = createOpenAICompatible({
  name: "tureen",
  baseURL,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const providers = { chats: compatible(process.env.MODEL), responses: createOpenAI({ baseURL, apiKey })(process.env.MODEL) };
const schema = z.object({ city: z.enum(["Oslo", "Rome"]) });
const prompt = "why do leaves fall?";
const found = {};

for (const [name, model] of Object.entries(providers)) {
  const asked = { model, prompt, temperature: 0, maxRetries: 0 };
  const whole = await generateText({ ...asked, maxOutputTokens: 16 });
  const errors = [];
  const stream = streamText({ ...asked, maxOutputTokens: 16, onError: ({ error }) => errors.push(String(error)) });
  let streamed = "";
  for await (const piece of stream.textStream) streamed += piece;
  const shaping = { ...asked, temperature: 1, seed: 1 };
  const object = await generateObject({ ...shaping, schema });
  const objects = streamObject({ ...shaping, schema, onError: ({ error }) => errors.push(String(error)) });
  let streamedObject;
  for await (const partial of objects.partialObjectStream) streamedObject = partial;
  const called = await generateText({
    ...shaping,
    tools: { weather: tool({ inputSchema: schema, execute: async ({ city }) => `rain in ${city}` }) },
    toolChoice: "required",
  });
  let fault;
  try {
    await generateText({ ...asked, prompt: "a b ".repeat(9000) });
  } catch (error) {
    fault = { name: error.name, status: error.statusCode, retry: error.isRetryable, message: error.message };
  }
  found[name] = {
    text: whole.text,
    finish: whole.finishReason,
    usage: [whole.usage.inputTokens, whole.usage.outputTokens],
    streamed,
    streamedFinish: await stream.finishReason,
    streamedUsage: [(await stream.usage).inputTokens, (await stream.usage).outputTokens],
    object: object.object,
    streamedObject,
    calls: called.toolCalls.map((each) => [each.toolName, each.input]),
    results: called.toolResults.map((each) => each.output),
    errors,
    fault,
  };
}
console.log(JSON.stringify(found));
