/** The model: what it keeps of what the server says, and that it comes back. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { Model } from '../lib/model.js';

globalThis.window = globalThis;

class Socket {
  static opened = [];
  sent = [];

  constructor(url) {
    this.url = url;
    Socket.opened.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  says(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }
}

const made = () => {
  Socket.opened = [];
  const model = new Model({ news: 'ws://there', settings: { WebSocket: Socket } });
  model.open();
  return { model, socket: Socket.opened[0] };
};

test('it is opened once', () => {
  const { model } = made();
  model.open();
  assert.equal(Socket.opened.length, 1);
});

test('clusters are kept by id, the last status counts, and each move is told with the one before', () => {
  const { model, socket } = made();
  const moves = [];
  model.moved.connect((_, { now, before }) => moves.push([before?.state, now.state]));
  socket.says({ type: 'clusters', clusters: [{ id: 'a', state: 'queued' }] });
  socket.says({ type: 'cluster', cluster: { id: 'a', state: 'ready' } });
  socket.says({ type: 'cluster', cluster: { id: 'b', state: 'requested' } });
  assert.deepEqual([...model.clusters.values()].map(one => one.state), ['ready', 'requested']);
  assert.deepEqual(moves, [['queued', 'ready'], [undefined, 'requested']]);
  assert.equal(model.trouble, '');
});

test('what somebody waits for is told', () => {
  const { model, socket } = made();
  const told = [];
  model.noticed.connect((_, text) => told.push(text));
  socket.says({ type: 'notice', title: 'octopus', text: 'another login is under way' });
  assert.deepEqual(told, ['octopus: another login is under way']);
});

test('questions and answers', () => {
  const { model, socket } = made();
  const asked = [];
  model.asked.connect((_, question) => asked.push(question.number));
  socket.says({ type: 'question', number: 3, kind: 'secret', title: 'x', text: 'y' });
  model.answer(3, 'sesame');
  assert.deepEqual(asked, [3]);
  assert.deepEqual(socket.sent, [{ type: 'answer', number: 3, text: 'sesame' }]);
});

test('a lost connection is said, and opened again', t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { model, socket } = made();
  socket.says({ type: 'clusters', clusters: [] });
  socket.onclose();
  assert.match(model.trouble, /does not answer/);
  t.mock.timers.tick(500);
  assert.equal(Socket.opened.length, 2);
  Socket.opened[1].onclose();
  t.mock.timers.tick(500);
  assert.equal(Socket.opened.length, 2, 'the pauses grow');
  t.mock.timers.tick(500);
  Socket.opened[2].says({ type: 'clusters', clusters: [] });
  Socket.opened[2].onclose();
  t.mock.timers.tick(500);
  assert.equal(Socket.opened.length, 4, 'once it has answered, they are short again');
});

test('however long the server was away, it is tried every second', t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { socket } = made();
  socket.onclose();
  for (let n = 1; n < 12; n++) {
    t.mock.timers.tick(1000);
    assert.equal(Socket.opened.length, n + 1);
    Socket.opened[n].onclose();
  }
});

test('many news are shown at once', t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { model, socket } = made();
  let shown = 0;
  model.changed.connect(() => shown++);
  for (let n = 0; n < 200; n++) {
    socket.says({ type: 'cluster', cluster: { id: `${n}`, state: 'ready' } });
  }
  t.mock.timers.tick(100);
  assert.deepEqual([shown, model.clusters.size], [1, 200]);
});
