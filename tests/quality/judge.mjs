// Reads {name: html} from standard input, writes {name: {validate: [...], clients: [...]}} to standard output.
import { caniemail } from "caniemail";
import { HtmlValidate } from "html-validate";

let input = "";
for await (const piece of process.stdin) input += piece;

const validator = new HtmlValidate({
  extends: ["html-validate:recommended", "html-validate:document", "html-validate:a11y"],
});
const clients = ["apple-mail.*", "gmail.*", "outlook.*", "yahoo.*", "samsung-email.*"];
const answer = {};
for (const [name, html] of Object.entries(JSON.parse(input))) {
  const report = await validator.validateString(html);
  const validate = report.results.flatMap((result) =>
    result.messages.map(({ ruleId, message, line, column }) => ({ rule: ruleId, message, line, column })),
  );
  const { issues } = caniemail({ clients, html });
  const of = (kind) =>
    [...issues[kind]].flatMap(([client, found]) =>
      found.map(({ title, notes }) => ({ kind, client, title, notes: notes ?? [] })),
    );
  answer[name] = { validate, clients: [...of("errors"), ...of("warnings")] };
}
process.stdout.write(JSON.stringify(answer));
