/** The queues: asked for while somebody looks, at a bounded pace, and of one site at a time. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { Queues } from '../lib/queues.js';
import { Refusal } from '../lib/refusal.js';

globalThis.window = globalThis;

const settled = () => new Promise(resolve => setImmediate(resolve));

const made = (answer = async () => []) => {
  const asked = [];
  const queues = new Queues({
    queues: site => {
      asked.push(site);
      return answer(site);
    }
  });
  return { queues, asked };
};

const seen = queues => {
  queues.look('panel', true);
  queues.look('section', true);
};

test('they are asked for only while page, panel and section can be seen', async t => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const { queues, asked } = made();
  queues.look('section', true);
  t.mock.timers.tick(100000);
  assert.equal(asked.length, 0);
  queues.look('panel', true);
  await settled();
  t.mock.timers.tick(2999);
  assert.equal(asked.length, 1);
  t.mock.timers.tick(1);
  await settled();
  assert.equal(asked.length, 2);
  queues.look('page', false);
  t.mock.timers.tick(100000);
  assert.equal(asked.length, 2);
  queues.look('page', true);
  assert.equal(asked.length, 3);
});

test('a site that is slow is asked less often', async t => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const { queues, asked } = made(async () => void t.mock.timers.tick(1000));
  seen(queues);
  await settled();
  t.mock.timers.tick(9999);
  assert.equal(asked.length, 1);
  t.mock.timers.tick(1);
  assert.equal(asked.length, 2);
});

test('a site that refuses is left alone, until the user asks', async t => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const { queues, asked } = made(async () => {
    throw new Refusal('nobody is here to answer');
  });
  seen(queues);
  await settled();
  t.mock.timers.tick(1000000);
  assert.deepEqual([asked.length, queues.trouble], [1, 'nobody is here to answer']);
  await queues.ask();
  assert.equal(asked.length, 2);
});

test('a late answer of another site is not shown', async () => {
  const answers = {};
  const { queues } = made(site => new Promise(resolve => (answers[site] = resolve)));
  queues.choose('slow');
  seen(queues);
  queues.choose('fast');
  answers.fast(['its own']);
  await settled();
  answers.slow(["another's"]);
  await settled();
  assert.deepEqual(queues.list, ['its own']);
  queues.look('panel', false);
});
