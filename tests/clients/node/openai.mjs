// The openai SDK of Node as its documentation shows it; prints what it read as one JSON.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const model = process.env.MODEL;
const client = new OpenAI({ maxRetries: 0 });
const messages = [{ role: "user", content: "why do leaves fall?" }];
const input = "why do leaves fall?";
const asked = { model, messages, temperature: 0, max_tokens: 8 };
const shaping = { model, temperature: 1, seed: 1 };
const City = z.object({ city: z.enum(["Oslo", "Rome"]) });
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Oslo", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};
const found = {};

const listed = await client.models.list();
found.models = listed.data.map((each) => each.id);
found.mix = (await client.models.retrieve(model)).id;

found.chat = await client.chat.completions.create(asked);
found.chunks = [];
for await (const chunk of await client.chat.completions.create({
  ...asked,
  stream: true,
  stream_options: { include_usage: true },
}))
  found.chunks.push(chunk);
const stream = client.chat.completions.stream(asked);
found.streamed = await stream.finalContent();
found.completion = await client.completions.create({
  model,
  prompt: ["why", "leaves"],
  temperature: 0,
  max_tokens: 4,
  logprobs: 2,
});

const parsed = await client.chat.completions.parse({
  ...shaping,
  messages,
  response_format: zodResponseFormat(City, "city"),
});
found.parsed = parsed.choices[0].message.parsed;

const tool = { type: "function", function: { name: "weather", parameters } };
const called = await client.chat.completions.create({
  ...shaping,
  messages,
  tools: [tool],
  tool_choice: "required",
  parallel_tool_calls: false,
});
const said = called.choices[0].message;
found.called = called.choices[0];
const [call] = said.tool_calls;
found.told = await client.chat.completions.create({
  ...asked,
  messages: [...messages, said, { role: "tool", tool_call_id: call.id, content: "rain" }],
  tools: [tool],
  tool_choice: "none",
});
const calling = client.chat.completions.stream({
  ...shaping,
  messages,
  tools: [tool],
  tool_choice: { type: "function", function: { name: "weather" } },
});
found.streamedCall = (await calling.finalChatCompletion()).choices[0].message.tool_calls[0].function;
found.ran = [];
const runner = client.chat.completions.runTools(
  {
    ...shaping,
    messages,
    tool_choice: { type: "function", function: { name: "weather" } },
    tools: [
      {
        type: "function",
        function: { name: "weather", parameters, parse: JSON.parse, function: (given) => (found.ran.push(given), "rain") },
      },
    ],
  },
  { maxChatCompletions: 2 },
);
await runner.done();

const response = await client.responses.create({ model, input, temperature: 0, max_output_tokens: 16 });
found.response = { text: response.output_text, status: response.status, usage: response.usage };
found.events = [];
for await (const event of await client.responses.create({
  model,
  input,
  temperature: 0,
  max_output_tokens: 16,
  stream: true,
}))
  found.events.push({ type: event.type, delta: event.delta });
const shaped = await client.responses.parse({
  model,
  input,
  temperature: 1,
  text: { format: zodTextFormat(City, "city") },
});
found.shaped = shaped.output_parsed;
const functions = await client.responses.create({
  model,
  input,
  temperature: 1,
  tools: [{ type: "function", name: "weather", parameters, strict: true }],
  tool_choice: "required",
  parallel_tool_calls: false,
});
found.functions = functions.output.filter((each) => each.type === "function_call");

const stranger = new OpenAI({ maxRetries: 0, apiKey: "wrong" });
const spent = new OpenAI({ maxRetries: 0, apiKey: process.env.SPENT });
const faults = {
  value: () => client.chat.completions.create({ ...asked, temperature: 9 }),
  streamed: () => client.chat.completions.create({ ...asked, stream: true, temperature: 9 }),
  missing: () => client.chat.completions.create({ ...asked, model: "nobody" }),
  long: () => client.chat.completions.create({ ...asked, messages: [{ role: "user", content: "a b ".repeat(9000) }] }),
  key: () => stranger.models.list(),
  busy: () => Promise.all([1, 2].map(() => spent.chat.completions.create(asked))),
  stored: () => client.responses.create({ model, input, previous_response_id: "resp_1" }),
  embeddings: () => client.embeddings.create({ model, input }),
};
found.faults = {};
for (const [name, attempt] of Object.entries(faults)) {
  try {
    await attempt();
    found.faults[name] = null;
  } catch (error) {
    found.faults[name] = { class: error.constructor.name, status: error.status, code: error.code, message: error.message };
  }
}
console.log(JSON.stringify(found));
