// Compiles one Move package without a network: node compile.mjs PACKAGE STUBS > build.json
// Needs the npm package @zktx.io/sui-move-builder@0.5.1 in NODE_PATH's or this folder's node_modules.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , packageFolder, stubsFolder] = process.argv;
const entry = createRequire(path.join(process.cwd(), 'x.js')).resolve('@zktx.io/sui-move-builder');
const builder = await import(pathToFileURL(entry));

function sources(folder, base = folder) {
  const files = {};
  for (const item of fs.readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, item.name);
    if (item.isDirectory()) Object.assign(files, sources(full, base));
    else if (/\.(move|toml)$/.test(item.name)) files[path.relative(base, full)] = fs.readFileSync(full, 'utf8');
  }
  return files;
}

const FRAMEWORK = { 'sui-framework': 'sui', 'move-stdlib': 'std', 'sui-system': 'sui_system' };
const stubsOf = (text) => {
  const key = Object.keys(FRAMEWORK).find((name) => (text ?? '').endsWith('packages/' + name));
  return key && path.join(stubsFolder, FRAMEWORK[key]);
};

// The compiler asks for the framework's sources as if from its repository; it gets the stubs.
const fetcher = {
  async fetch(url, revision, folder) {
    const stubs = stubsOf(folder);
    if (!stubs) throw new Error(`no stub for ${url} ${folder}`);
    return sources(stubs);
  },
  async fetchFile(url, revision, file) {
    const stubs = stubsOf(path.dirname(file));
    const full = stubs && path.join(stubs, path.basename(file));
    return full && fs.existsSync(full) ? fs.readFileSync(full, 'utf8') : null;
  },
  getResolvedSha: (url, revision) => revision,
};

await builder.initMovePackageBuilder();
const result = await builder.dumpMovePackage({ files: sources(packageFolder), network: 'mainnet', fetcher, lintFlag: 'default' });
if ('error' in result) {
  console.error(result.category, result.error);
  process.exit(1);
}
if (result.warnings) console.error(result.warnings);
const { modules, dependencies } = result;
const digest = Buffer.from(result.digest).toString('hex');
process.stdout.write(JSON.stringify({ modules, dependencies, digest }));
