/** What a login node asks, as dialogs. */

import { Dialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import type { IQuestion, Model } from './model';

/** Ask the user whatever the model is asked; a question that was answered on another page goes away. */
export function answerQuestions(model: Model): void {
  const open = new Map<number, Dialog<unknown>>();
  model.answered.connect((_, number) => open.get(number)?.reject());
  model.asked.connect((_, question) => {
    if (!open.has(question.number)) {
      void put(question, open).then(text => model.answer(question.number, text));
    }
  });
}

async function put(question: IQuestion, open: Map<number, Dialog<unknown>>): Promise<string | null> {
  const body = new Question(question);
  const confirm = question.kind === 'confirm';
  const dialog = new Dialog<string>({
    title: question.title,
    body,
    ...(confirm ? {} : { focusNodeSelector: 'input' }),
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: confirm ? 'Yes' : 'OK' })]
  });
  open.set(question.number, dialog);
  const result = await dialog.launch();
  open.delete(question.number);
  return result.button.accept ? (confirm ? 'yes' : result.value) : null;
}

/** The text as the login node put it, and a place for the answer. */
class Question extends Widget implements Dialog.IBodyWidget<string> {
  constructor(question: IQuestion) {
    super();
    this.addClass('hpcnb-question');
    const text = document.createElement('pre');
    text.textContent = question.text;
    this.node.append(text);
    if (question.kind !== 'confirm') {
      this._input.type = question.kind === 'secret' ? 'password' : 'text';
      this._input.autocomplete = 'off';
      this._input.className = 'jp-mod-styled';
      this.node.append(this._input);
    }
  }

  getValue(): string {
    return this._input.value;
  }

  private _input = document.createElement('input');
}
