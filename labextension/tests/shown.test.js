/** What a cell shows that an earlier page has run: as if this page had run it. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { Shown } from '../lib/shown.js';

/** Outputs as JupyterLab keeps them: streams joined, and a clearing that waits for what comes next. */
class Outputs {
  all = [];
  waits = false;

  get length() {
    return this.all.length;
  }

  add(output) {
    if (this.waits) {
      this.clear();
    }
    const last = this.all.at(-1);
    if (output.output_type === 'stream' && last?.output_type === 'stream' && last.name === output.name) {
      last.text += output.text;
    } else {
      this.all.push({ ...output });
    }
    return this.length;
  }

  set(index, output) {
    this.all[index] = output;
  }

  clear(wait = false) {
    this.waits = wait;
    if (!wait) {
      this.all = [];
    }
  }
}

const stream = text => ({ type: 'stream', content: { name: 'stdout', text } });
const display = (text, id, type = 'display_data') => ({
  type,
  content: { data: { 'text/plain': text }, metadata: {}, ...(id && { transient: { display_id: id } }) }
});
const said = (...messages) => {
  const outputs = new Outputs();
  const shown = new Shown(outputs);
  messages.forEach(message => shown.add(message));
  return outputs.all.map(output => output.text ?? output.data?.['text/plain'] ?? output.ename);
};

test('streams, displays and errors, in their order', () => {
  const error = { type: 'error', content: { ename: 'KeyError', evalue: '', traceback: [] } };
  assert.deepEqual(said(stream('a'), stream('b'), display('c'), error), ['ab', 'c', 'KeyError']);
});

test('what is transient is not in the notebook', () => {
  const outputs = new Outputs();
  new Shown(outputs).add(display('a', 'one'));
  assert.deepEqual(outputs.all, [{ output_type: 'display_data', data: { 'text/plain': 'a' }, metadata: {} }]);
});

test('an update finds its displays, after streams that were joined, and no others', () => {
  const update = display('new', 'one', 'update_display_data');
  const shown = said(stream('a'), stream('b'), display('x', 'one'), display('y', 'two'), display('z', 'one'), update);
  assert.deepEqual(shown, ['ab', 'new', 'y', 'new']);
  assert.deepEqual(said(stream('a'), display('other', 'no', 'update_display_data')), ['a']);
});

test('after a clearing, at once or with the next output, an old display is updated no more', () => {
  const update = display('new', 'one', 'update_display_data');
  for (const wait of [false, true]) {
    const cleared = { type: 'clear_output', content: { wait } };
    assert.deepEqual(said(display('x', 'one'), cleared, stream('a'), update), ['a']);
    assert.deepEqual(said(display('x', 'one'), cleared), wait ? ['x'] : []);
  }
});

test('what the user has cleared does not come back', () => {
  const outputs = new Outputs();
  const shown = new Shown(outputs);
  shown.add(stream('a'));
  shown.add(display('x', 'one'));
  outputs.clear();
  shown.add(display('new', 'one', 'update_display_data'));
  assert.deepEqual(outputs.all, []);
});
